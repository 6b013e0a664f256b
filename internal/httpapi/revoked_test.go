package httpapi_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/access"
	"headway/internal/routing"
)

// A key that is revoked ends its requests at once, also those that wait, and no
// other's. The answers say why, and no head is blamed.
func TestARevokedKeyEndsItsRequests(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		p.neverFinishes()
		p.key(p.admin(), access.Request{Name: "root", Role: string(access.RoleAdmin)})
		key, secret, err := p.keys.Create(context.WithoutCancel(t.Context()), p.admin(), access.Request{Name: "gone", Role: string(access.RoleOperator)})
		if err != nil {
			t.Fatal(err)
		}
		other := p.key(p.admin(), access.Request{Name: "other", Role: string(access.RoleClient)})

		var all sync.WaitGroup
		var mu sync.Mutex
		answers, stays := map[string]planeAnswer{}, false
		ask := func(kind, path string, body io.Reader) {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+path, body)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+secret)
			r.Header.Set("X-Test", kind)
			all.Go(func() {
				a := planeAnswer{}
				if a.Response, a.err = p.client.Do(r); a.err == nil {
					a.body, a.err = io.ReadAll(a.Body)
					_ = a.Body.Close()
				}
				mu.Lock()
				defer mu.Unlock()
				answers[kind] = a
			})
		}
		for kind, u := range unfinished {
			ask(kind, u.path, strings.NewReader(u.body))
		}
		ask("passed through", "/heads/m/generate", strings.NewReader("{}"))
		slow, more := io.Pipe()
		ask("its body does not come", chatPath, slow)
		long, rest := io.Pipe()
		ask("its upload does not come", "/heads/m/generate", long)
		ctx, leave := context.WithCancel(t.Context())
		all.Go(func() {
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, p.url+chatPath, strings.NewReader(streamBody))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+other)
			r.Header.Set("X-Test", "in the middle of a stream")
			if res, err := p.client.Do(r); err == nil {
				defer res.Body.Close()
				_, err = io.ReadAll(res.Body)
				stays = ctx.Err() != nil && err != nil
			}
		})
		time.Sleep(15 * time.Second) // a head's silence has made a comment
		if err := p.keys.Revoke(context.WithoutCancel(t.Context()), key.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		mu.Lock()
		got := maps.Clone(answers)
		mu.Unlock()
		if len(got) != len(unfinished)+3 {
			t.Errorf("the answers are %v", slices.Sorted(maps.Keys(got)))
		}
		for kind, a := range got {
			text := string(a.body)
			if a.Response == nil {
				t.Errorf("%s: %v", kind, a.err)
				continue
			}
			if u, ok := unfinished[kind]; !ok || u.body == chatBody {
				if a.StatusCode != http.StatusUnauthorized || a.err != nil || !strings.Contains(text, `"code":"key_revoked"`) {
					t.Errorf("%s: %d %v\n%s", kind, a.StatusCode, a.err, text)
				}
				continue
			}
			last := text[strings.LastIndex(strings.TrimSuffix(text, "\n\n"), "\n\n")+2:]
			if says := `"code":"key_revoked"`; strings.HasPrefix(kind, "of Anthropic") && !strings.Contains(last, `"authentication_error"`) || !strings.HasPrefix(kind, "of Anthropic") && !strings.Contains(last, says) {
				t.Errorf("%s: its last event is %s", kind, last)
			}
			if a.StatusCode != http.StatusOK || a.err == nil || strings.Contains(text, "[DONE]") {
				t.Errorf("%s: %d %v\n%s", kind, a.StatusCode, a.err, text)
			}
		}
		if n := p.router.Open(); n != 1 {
			t.Errorf("%d places are taken", n)
		}
		for _, d := range p.router.Recent(routing.RecentQuery{Limit: 100}) {
			if o, ended := d.Outcome(); ended && (o.Result != routing.ResultCancelled || d.Head != nil && d.Head.Ejected()) {
				t.Errorf("an outcome is %+v", o)
			}
		}
		leave()
		_, _ = more.Close(), rest.Close()
		all.Wait()
		if !stays {
			t.Error("the stream of another key ended")
		}
	})
}
