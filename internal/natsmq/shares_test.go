package natsmq

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"headway/internal/access"
)

// A principal has no more connections than it leaves for others, by however many
// credentials, and gets back what its connections that have ended took.
func TestAPrincipalLeavesConnectionsForOthers(t *testing.T) {
	a := &authenticator{
		guard: &access.Guard{}, log: &limitedLog{log: slog.New(slog.DiscardHandler)}, here: map[uint64]*credential{}, known: map[string]*credential{}, shares: newShares(12),
	}
	one, two := &access.Principal{Type: "jwt", ID: "one"}, &access.Principal{Type: "jwt", ID: "two"}
	number := uint64(0)
	most := func(p *access.Principal) (n int) {
		for number++; a.enter(number, fmt.Sprint("jwt-", number), p); number++ {
			n++
		}
		return n
	}
	if n := most(one); n != 6 {
		t.Errorf("one has %d connections of 12", n)
	}
	if n := most(two); n != 3 {
		t.Errorf("two has %d connections of the 6 that are left", n)
	}
	for connection := range uint64(4) {
		a.leave(connection + 1)
		a.leave(connection + 1)
	}
	if n := most(one); n != 2 {
		t.Errorf("one has %d connections more after 4 of 6 have ended, with 3 of two", n)
	}
	if a.enter(1000, "jwt-x", &access.Principal{Type: "jwt"}) {
		t.Error("a principal without an id is let in")
	}
}

// Credentials whose connections ended make room, and are counted.
func TestCredentialsAreBounded(t *testing.T) {
	a := &authenticator{
		guard: &access.Guard{}, grace: time.Hour, here: map[uint64]*credential{}, known: map[string]*credential{}, shares: newShares(maxConnections),
		forgotten: prometheus.NewCounter(prometheus.CounterOpts{}),
	}
	p := &access.Principal{Type: "jwt", ID: "one"}
	for i := range uint64(maxCredentials + 1) {
		if a.enter(i, fmt.Sprint(i), p); i > 0 {
			a.leave(i)
		}
	}
	if len(a.known) != 2 || a.named("0") == nil || a.named(fmt.Sprint(maxCredentials)) == nil {
		t.Errorf("%d credentials are known; want the one that is connected, and the last", len(a.known))
	}
	if n := counted(t, a.forgotten); n != maxCredentials-1 {
		t.Errorf("%v are counted as forgotten", n)
	}
}

func TestNoAccountHoldsMoreThanItLeaves(t *testing.T) {
	s := newShares(120)
	most := func(account string) (n int) {
		for s.take(account, 1) {
			n++
		}
		return n
	}
	for i, want := range []int{60, 30, 15, 7, 4, 2, 1} {
		if got := most(fmt.Sprint("account ", i)); got != want {
			t.Errorf("account %d takes %d; want %d", i, got, want)
		}
	}
	if got := most("account 0"); got != 0 {
		t.Errorf("the first takes %d more", got)
	}
	s.give("account 0", 60)
	if _, kept := s.of["account 0"]; kept || s.used != 59 {
		t.Errorf("it is remembered, and %d are used", s.used)
	}
	s.give("account 1", 99) // more than it has
	if s.used != 29 {
		t.Errorf("%d are used", s.used)
	}
	if !s.take("account 1", 45) || s.take("account 1", 1) {
		t.Error("a share is not what the others leave")
	}
}

func TestRoomOfBeforeIsGivenBackLast(t *testing.T) {
	r := &room{shares: newShares(int64(100))}
	r.add(earlier, 20)
	if err := r.take("a", 10); err != nil {
		t.Fatal(err)
	}
	r.give("a", 15) // 10 of its own, 5 of before
	if r.shares.used != 15 || r.shares.of[earlier] != 15 {
		t.Errorf("%+v", r.shares)
	}
	if r.filled() != 0.15 {
		t.Errorf("filled is %v", r.filled())
	}
	if r.take("a", 43) == nil || r.take("a", 42) != nil {
		t.Error("a may take what is left for others, 42")
	}
}

// What is remembered of commands is bounded. The oldest are forgotten, and
// counted unless that was long ago.
func TestCommandsThatWereSeenAreBounded(t *testing.T) {
	s, now := &seen{forgotten: prometheus.NewCounter(prometheus.CounterOpts{}), keep: time.Hour}, time.Now()
	claim := func(from, to int, at time.Time) {
		t.Helper()
		for i := from; i < to; i++ {
			if fresh, _ := s.claim(fmt.Sprint(i), at, time.Minute); !fresh {
				t.Fatalf("%d is not new", i)
			}
		}
	}
	claim(0, maxSeen/2, now)
	claim(maxSeen/2, maxSeen, now.Add(-2*time.Hour))
	if n := len(s.newer) + len(s.older); n != maxSeen {
		t.Errorf("%d are remembered; want %d", n, maxSeen)
	}
	s.applied("0")
	if fresh, applied := s.claim("0", now, time.Minute); fresh || !applied {
		t.Error("the first is forgotten")
	}
	if fresh, _ := s.claim("0", now.Add(time.Hour), time.Minute); !fresh {
		t.Error("a repetition of long after is the same")
	}
	if n := counted(t, s.forgotten); n != maxSeen/2 {
		t.Errorf("%v of the first %d are counted as forgotten", n, maxSeen/2)
	}
	claim(maxSeen, 3*maxSeen/2, now)
	if n := counted(t, s.forgotten); n != maxSeen/2 || len(s.newer)+len(s.older) > maxSeen {
		t.Errorf("%v are counted after some from two hours ago, %d are remembered", n, len(s.newer)+len(s.older))
	}
	if fresh, _ := s.claim("1", now, time.Minute); !fresh {
		t.Error("the oldest is remembered")
	}
	s.release("1")
	if fresh, _ := s.claim("1", now, time.Minute); !fresh {
		t.Error("one that was released is remembered")
	}
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func TestCommandIDs(t *testing.T) {
	const named, shared = "headway.v1.decisions.outcome.k-1", "headway.v1.decisions.outcome"
	one := commandID(named, "id", []byte("body"))
	if other := commandID("headway.v1.stored.decisions.outcome.k-1", "id", []byte("another")); other != one {
		t.Error("the same id of the same sender is another one in the stream, or with another body")
	}
	for what, other := range map[string]string{
		"another sender": commandID("headway.v1.decisions.outcome.k-2", "id", []byte("body")),
		"another queue":  commandID("headway.v1.commands.heads.register.k-1", "id", []byte("body")),
		"another id":     commandID(named, "id2", []byte("body")),
		"no sender":      commandID(shared, "id", []byte("body")),
	} {
		if other == one {
			t.Errorf("%s has the same", what)
		}
	}
	if commandID(shared, "id", []byte("body")) == commandID(shared, "id", []byte("another")) {
		t.Error("without a sender another body has the same")
	}
}
