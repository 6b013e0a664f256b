package httpapi_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"headway/api"
	"headway/internal/policy"
	"headway/internal/routing"
)

// late is a body before whose begin something happens.
type late struct {
	io.Reader
	happens func()
}

func (l *late) Read(b []byte) (int, error) {
	if l.happens != nil {
		l.happens()
		l.happens = nil
	}
	return l.Reader.Read(b)
}

func (l *late) Close() error { return nil }

// alias adds an alias to the policy in force, as the policy file might.
func (w *world) alias(name string) error {
	next, faults := w.router.Policy().Merge(fmt.Appendf(nil, `{"aliases":{%q:"llama"}}`, name))
	if len(faults) > 0 {
		return fmt.Errorf("%v", faults)
	}
	_, err := w.router.Apply(w.Context(), routing.Change{Make: routing.To(next), Expect: routing.AnyRevision, Source: policy.SourceFile})
	return err
}

// If-Match: * asks for a change of any current policy, also when that becomes
// another while the request comes; a tag asks for that one policy.
func TestAChangeOfAnyCurrentPolicy(t *testing.T) {
	w := newWorld(t)
	ask := func(method, target, body, match string) *answer {
		r := newRequest(t, method, target, body)
		if match != "" {
			r.Header.Set("If-Match", match)
		}
		r.Body = &late{strings.NewReader(body), func() {
			if err := w.alias(fmt.Sprintf("before-%d", w.router.Policy().Revision)); err != nil {
				t.Error(err)
			}
		}}
		return w.ask(r)
	}
	a := ask("PATCH", "/api/v1/policy", `{"aliases":{"mine":"llama"}}`, "*")
	aliases := w.router.Policy().Document.Aliases
	if a.status != http.StatusOK || a.header.Get("ETag") != `"2"` || aliases["mine"] == "" || aliases["before-0"] == "" {
		t.Errorf("PATCH: %d %s, aliases %v", a.status, a.body, aliases)
	}
	if a = ask("PUT", "/api/v1/policy", `{"default_strategy":"random"}`, "*"); a.status != http.StatusOK || a.header.Get("ETag") != `"4"` {
		t.Errorf("PUT: %d %s", a.status, a.body)
	}
	for _, match := range []string{`"4"`, `"3", "4"`} {
		a := ask("PATCH", "/api/v1/policy", `{"default_strategy":"round_robin"}`, match)
		w.problem(http.StatusPreconditionFailed, api.CodePreconditionFailed, a)
	}
}

// Each change names the policy that it is made for, by a strong tag.
func TestAChangeNamesThePolicyThatItChanges(t *testing.T) {
	w := newWorld(t)
	if err := w.alias("first"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, target, body string }{
		{"PUT", "/api/v1/policy", `{"default_strategy":"random"}`},
		{"PATCH", "/api/v1/policy", `{"default_strategy":"round_robin"}`},
		{"POST", "/api/v1/policy/revisions/0/restore", ""},
	} {
		tag := w.do("GET", "/api/v1/policy", "").header.Get("ETag")
		w.problem(http.StatusPreconditionRequired, api.CodePreconditionMissing, w.do(c.method, c.target, c.body))
		for _, match := range []string{"W/" + tag, `"0"`, `""`, strings.Trim(tag, `"`), `"*"`} {
			w.problem(http.StatusPreconditionFailed, api.CodePreconditionFailed, w.do(c.method, c.target, c.body, "If-Match", match))
		}
		if now := w.do("GET", "/api/v1/policy", "").header.Get("ETag"); now != tag {
			t.Fatalf("%s: a change that was refused made %s of %s", c.method, now, tag)
		}
		a := w.must(http.StatusOK, c.method, c.target, c.body, "If-Match", `"0", `+tag)
		if a.header.Get("ETag") == tag {
			t.Errorf("%s: the tag is still %s", c.method, tag)
		}
		w.must(http.StatusOK, c.method, c.target, c.body, "If-Match", "*")
	}
}

// Each revision is on one page.
func TestPagesOfRevisions(t *testing.T) {
	w := newWorld(t)
	for n := range 5 {
		if err := w.alias(fmt.Sprint("a", n)); err != nil {
			t.Fatal(err)
		}
	}
	var seen []uint64
	for cursor := ""; ; {
		page := into[api.List[api.PolicyRevision]](t, w.must(http.StatusOK, "GET", "/api/v1/policy/revisions?limit=2&cursor="+cursor, ""))
		for _, p := range page.Data {
			seen = append(seen, p.Revision)
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if !slices.Equal(seen, []uint64{5, 4, 3, 2, 1, 0}) {
		t.Errorf("the pages have revisions %v", seen)
	}
}

// Many at once say that any current policy will do, while the policy file
// changes, too: each change is made, and none undoes another.
func TestManyChangesOfAnyCurrentPolicy(t *testing.T) {
	w := newWorld(t)
	const callers, changes = 4, 10
	var callersDone, all sync.WaitGroup
	stop := make(chan struct{})
	all.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			current := w.router.Policy()
			doc := current.Document
			doc.DefaultStrategy = []string{"random", "round_robin"}[i%2]
			next, _ := policy.Compile(doc)
			if _, err := w.router.Apply(t.Context(), routing.Change{Make: routing.To(next), Expect: current.Revision, Source: policy.SourceFile}); err != nil && !errors.Is(err, policy.ErrConflict) {
				t.Error(err)
				return
			}
		}
	})
	for c := range callers {
		callersDone.Go(func() {
			for i := range changes {
				body := fmt.Sprintf(`{"aliases":{"a-%d-%d":"llama"}}`, c, i)
				if a := w.ask(newRequest(t, "PATCH", "/api/v1/policy", body, "If-Match", "*")); a.status != http.StatusOK {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
		})
	}
	callersDone.Wait()
	close(stop)
	all.Wait()
	aliases := w.router.Policy().Document.Aliases
	for c := range callers {
		for i := range changes {
			if name := fmt.Sprintf("a-%d-%d", c, i); aliases[name] == "" {
				t.Errorf("the change that adds %s is lost", name)
			}
		}
	}
}
