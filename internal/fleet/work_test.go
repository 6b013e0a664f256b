package fleet

import (
	"math"
	"testing"
	"time"
)

// withWork is a head with so many requests, each of 1,000 tokens of which 400 are new.
func withWork(requests int) *Live {
	l := new(Live)
	l.ReportedLate() // outcomes are reported
	for range requests {
		l.TryAcquire(0, Work{Tokens: 1000, New: 400, Pending: 500})
	}
	return l
}

// A prompt is ahead until its first token, and what it holds of the cache until its end.
func TestWorkIsAheadUntilTheFirstToken(t *testing.T) {
	l := withWork(3)
	is := func(when string, ahead, requests float64, tokens int64) {
		t.Helper()
		if b := burden(l, 0, 1); b.Ahead != ahead || b.Requests != requests || l.Tokens() != tokens {
			t.Errorf("%s: %+v with %d tokens, want %v ahead, %v requests and %d", when, b, l.Tokens(), ahead, requests, tokens)
		}
	}
	is("three placed", 1500, 3, 3000)
	l.Answers(500, false)
	is("one answers", 1000, 3, 3000)
	l.Release(Work{Tokens: 1000})
	is("it ends", 1000, 2, 2000)
	l.Release(Work{Tokens: 1000, Pending: 500})
	is("one ends without a first token", 500, 1, 1000)
	l.SetOthers(Others{InFlight: 2, Tokens: 7, Pending: 100})
	is("with what another router says", 600, 3, 1000)
}

// What a report says counts beside what we sent, and in its place where our own
// counts are not valid.
func TestABurdenIsOursAndWhatTheReportHasBeyond(t *testing.T) {
	report := func(l *Live, inFlight, queued, pending int64) {
		load := UnknownLoad()
		load.InFlight, load.Queued, load.PendingPromptTokens = inFlight, queued, pending
		l.TakeReport(&load, someTime, 0, time.Second, 1)
	}
	l := withWork(2)
	if b := burden(l, 0, 100); b.Beyond != -1 && b.Beyond != 0 || b.Waiting != 0 {
		t.Errorf("without a report %+v", b)
	}
	report(l, 2, 0, 1000)
	if b := burden(l, 0, 100); b.Ahead != 1000 || b.Beyond != 0 || b.Waiting != 0 {
		t.Errorf("the report has just ours: %+v", b)
	}
	report(l, 3, 2, 1600)
	if b := burden(l, 0, 100); b.Ahead != 1000 || b.Beyond != 3 || b.Waiting != 600 {
		t.Errorf("three requests and 600 tokens beyond ours: %+v", b)
	}
	report(l, 3, 2, Unknown)
	if b := burden(l, 0, 100); b.Ahead != 1000 || b.Beyond != 3 || b.Waiting != 200 {
		t.Errorf("two of the others wait, of 100 tokens each: %+v", b)
	}

	blind := withWork(2)
	for range 20 {
		blind.Expire(Work{}) // so no ends are reported
		blind.TryAcquire(0, Work{})
	}
	report(blind, 1, 1, 700)
	blind.TryAcquire(0, Work{Tokens: 1000, Pending: 500})
	if b := burden(blind, 0, 100); b.Ahead+b.Waiting != 1200 || b.Requests+b.Beyond != 3 {
		t.Errorf("700 tokens reported and 500 sent since, 2 requests and one since: %+v", b)
	}
	report(blind, 1, 1, Unknown)
	blind.TryAcquire(0, Work{Tokens: 1000, Pending: 500})
	if b := burden(blind, 0, 100); b.Ahead+b.Waiting != 200 {
		t.Errorf("one waits by the report and one was sent since, of 100 tokens each: %+v", b)
	}
	report(blind, 40, Unknown, Unknown)
	if b := burden(blind, 0, 100); b.Requests+b.Beyond != 40 || b.Beyond == 0 || b.Ahead+b.Waiting != 4000 {
		t.Errorf("40 requests, more than ours, of which all may wait: %+v", b)
	}
}

// The KV cache is used by what the report says and what came and went since.
func TestTheUseOfTheKVCache(t *testing.T) {
	l := withWork(2)
	if kv := burden(l, 1000, 1).KV; kv != 0 {
		t.Errorf("of an unknown cache %v is used", kv)
	}
	load := UnknownLoad()
	load.KVCapacityTokens = 10_000
	l.TakeReport(&load, someTime, 0, time.Second, 1)
	near := func(when string, want float64) {
		t.Helper()
		if kv := burden(l, 1000, 1).KV; math.Abs(kv-want) > 1e-6 {
			t.Errorf("%s: %v of the cache is used, want %v", when, kv, want)
		}
	}
	near("2,000 tokens of ours and the prompt", 0.3)
	load.KVCacheUsage = 0.5
	l.TakeReport(&load, someTime, 0, time.Second, 2)
	near("half by the report, and the prompt", 0.6)
	l.TryAcquire(0, Work{Tokens: 1000})
	near("one more since", 0.7)
	l.Release(Work{Tokens: 1000})
	l.Release(Work{Tokens: 1000})
	near("two ended", 0.5)
}

// A cache of which nothing is known is not an empty one.
func TestAKVCacheMayBeUnknown(t *testing.T) {
	l := withWork(2)
	load := UnknownLoad()
	l.TakeReport(&load, someTime, 0, time.Second, 1)
	if kv := burden(l, 1000, 1).KV; kv >= 0 {
		t.Errorf("of an unknown cache %v is used", kv)
	}
	load.KVCacheUsage = 0
	l.TakeReport(&load, someTime, 0, time.Second, 2)
	if kv := burden(l, 1000, 1).KV; kv != 0 {
		t.Errorf("of an empty cache of unknown size %v is used", kv)
	}
}

// Where whole answers come, the pending tokens of a report stand in for ours.
func TestWholeAnswersShowNoFirstTokens(t *testing.T) {
	l := withWork(2)
	for range 20 {
		l.TryAcquire(0, Work{Tokens: 10, Pending: 10})
		l.Answers(10, true)
		l.Release(Work{Tokens: 10})
	}
	load := UnknownLoad()
	load.InFlight, load.Queued, load.PendingPromptTokens = 2, 0, 300
	l.TakeReport(&load, someTime, 0, time.Second, 1)
	if b := burden(l, 0, 100); b.Ahead != 300 || b.Waiting != 0 || !b.Reported || l.OwnPending() != 1000 {
		t.Errorf("300 tokens are reported of the 1,000 that we count: %+v", b)
	}
	l.TryAcquire(0, Work{Tokens: 500, Pending: 500})
	if b := burden(l, 0, 100); b.Ahead != 800 {
		t.Errorf("500 were sent since: %+v", b)
	}
	l.Answers(500, true)
	l.Answers(500, true)
	l.Answers(500, true)
	if b := burden(l, 0, 100); b.Ahead != 0 || b.Waiting != 0 {
		t.Errorf("all have ended: %+v", b)
	}
}

// A head whose KV cache is full is not crowded, nor is one that names no limit.
func TestCrowded(t *testing.T) {
	for name, c := range map[string]struct {
		inFlight, limit int64
		kv              float64
		after           time.Duration
		full, crowded   bool
	}{
		"as many as it takes":  {10, 10, math.NaN(), 0, true, true},
		"fewer":                {9, 10, math.NaN(), 0, false, false},
		"a full KV cache":      {9, 10, 0.99, 0, true, false},
		"no limit":             {300, 0, math.NaN(), 0, true, false},
		"what was a while ago": {10, 10, math.NaN(), time.Minute, false, false},
	} {
		l, load := new(Live), UnknownLoad()
		load.InFlight, load.Queued, load.KVCacheUsage = c.inFlight, 1, c.kv
		if c.limit > 0 {
			load.Queued = 0
		}
		l.TakeReport(&load, someTime, c.limit, time.Second, 1)
		now := someTime.Add(c.after)
		if full, crowded := l.Full(0, c.limit, now), l.Crowded(0, c.limit, now); full != c.full || crowded != c.crowded {
			t.Errorf("%s: full %t, crowded %t", name, full, crowded)
		}
	}
}

func burden(l *Live, tokens, usual float64) (b Burden) {
	l.Burden(&b, tokens, usual)
	return b
}

// What began to be answered passes what was placed before it, first tokens in any
// order, but for what a head may compute together with it.
func TestWhatMayBeComputedTogetherIsNotPassed(t *testing.T) {
	l, placed := new(Live), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if l.Passed(placed) {
		t.Error("a head that began to answer nothing has passed a request")
	}
	for _, after := range []time.Duration{time.Second, 500 * time.Millisecond} { // one that was placed later begins first
		l.Began(placed.Add(after))
	}
	for after, want := range map[time.Duration]bool{0: true, 899 * time.Millisecond: true, 901 * time.Millisecond: false, 2 * time.Second: false} {
		if is := l.Passed(placed.Add(after)); is != want {
			t.Errorf("what was placed after %v is passed: %v, want %v", after, is, want)
		}
	}
}
