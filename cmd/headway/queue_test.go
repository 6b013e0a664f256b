package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"headway/api"
	"headway/client"
)

// What cannot be put back does not keep the rest from it.
func TestDeadLettersArePutBackPastFailures(t *testing.T) {
	p := serve(t, t.TempDir(), "--queue-listen", "127.0.0.1:0")
	nc, err := nats.Connect(p.announced().QueueURL)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	request := func(m *nats.Msg) {
		t.Helper()
		eventually(t, patience, "it is in the stream", func() error {
			answer, err := nc.RequestMsg(m, 5*time.Second)
			if err == nil && !bytes.Contains(answer.Data, []byte(`"seq"`)) {
				err = fmt.Errorf("%s", answer.Data)
			}
			return err
		})
	}
	forged := nats.NewMsg("headway.v1.dead_letters.events")
	forged.Header.Set("Headway-Subject", "headway.v1.events.head.expired")
	request(forged)
	request(&nats.Msg{Subject: "headway.v1.decisions.outcome", Data: []byte(`{"decision_id":"x","result":"ok"}`)})
	s := &shell{TB: t, dir: t.TempDir(), env: []string{"HEADWAY_SERVER=" + p.url}}
	letters := func() (list []api.DeadLetter) {
		t.Helper()
		out, _ := s.cli(exitOK, "queue", "ls", "-o", "json")
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	eventually(t, patience, "both are letters", func() error {
		if n := len(letters()); n != 2 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	second := letters()[1].Number
	_, said := s.cli(exitRefused, "queue", "retry", "--all")
	has(t, said, "dead letter 1: ", "1 of 2 failed", "no command that this service has")
	eventually(t, patience, "the other one was tried again", func() error {
		if list := letters(); len(list) != 2 || list[0].Number != 1 || list[1].Number <= second {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	_, said = s.cli(exitNotFound, "queue", "purge", "1", "99")
	has(t, said, "dead letter 99: ", "1 of 2 failed")
}

// A key may ask as often over the queue as over HTTP, and what it may not do is
// in the trail.
func TestAKeyIsLimitedAndRecordedOverTheQueue(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	admin, _ := s.cli(exitOK, "keys", "create", "--role", "admin", "--name", "me", "--data-dir", "data")
	p := serve(t, filepath.Join(s.dir, "data"), "--queue-listen", "127.0.0.1:0", "--access-requests-per-key", "1")
	c, err := client.New(p.url, client.WithToken(strings.TrimSpace(admin)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	connect := func(r api.KeyRequest) (*nats.Conn, string) {
		t.Helper()
		key, err := c.CreateKey(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		nc, err := nats.Connect(p.announced().QueueURL, nats.Token(key.Secret), nats.CustomInboxPrefix("_INBOX."+key.ID))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc, key.ID
	}
	caller, id := connect(api.KeyRequest{Name: "chat", Role: "client"})
	for _, subject := range []string{"headway.v1.decisions.request", "headway.v1.decisions.request." + id} {
		admitted := 0
		from := time.Now()
		for range 200 {
			m, err := caller.Request(subject, []byte(`{"model_type":"nobody"}`), 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(m.Data, []byte(`"rate_limited"`)) {
				admitted++
			}
		}
		if most := 6 + int(time.Since(from).Seconds()); admitted < 5 || admitted > most {
			t.Errorf("%s: %d admitted; want 5 to %d", subject, admitted, most)
		}
	}
	head, id := connect(api.KeyRequest{Name: "rack", Role: "head", Heads: []string{"gpu-*"}})
	m, err := head.Request("headway.v1.heads.register."+id, []byte(headBody("cpu-1")), 10*time.Second)
	if err != nil || !bytes.Contains(m.Data, []byte(`"forbidden"`)) {
		t.Fatalf("%+v, %v", m, err)
	}
	eventually(t, patience, "it is in the trail", func() error {
		raw, err := os.ReadFile(filepath.Join(s.dir, "data", "audit.log"))
		if err == nil && !regexp.MustCompile(`"head.register","outcome":"denied".*"`+id+`".*"nats"`).Match(raw) {
			err = errors.New(string(raw))
		}
		return err
	})
}
