package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"headway/internal/registry"
)

// While the mass-expiry guard holds heads, readiness says that they take
// requests, and a decision goes to one of them.
func TestReadinessCountsTheHeadsThatAreHeld(t *testing.T) {
	fakeTime(t, func(t *testing.T) {
		w := newWorldOf(t, registry.LeaseOptions{})
		detail := func() string {
			a := w.do(http.MethodGet, "/readyz", "")
			return string(a.body)
		}
		for i := range 6 {
			body := fmt.Sprintf(`{"id":"h%d","endpoint":"http://127.0.0.1:9","model_types":["m"],"region":"eu","status":"active"}`, i)
			if a := w.do(http.MethodPost, "/api/v1/heads", body); a.status != http.StatusCreated {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		if got := detail(); !strings.Contains(got, `"heads: 6, of which take requests: 6"`) {
			t.Errorf("at first: %s", got)
		}
		time.Sleep(15 * time.Second)
		if a := w.do(http.MethodPost, "/api/v1/decisions", `{"model_type":"m"}`); a.status != http.StatusOK {
			t.Fatalf("a decision is answered with %d %s", a.status, a.body)
		}
		if got := detail(); !strings.Contains(got, `"heads: 6, of which take requests: 0; more that take requests though their leases ran out, since the mass-expiry guard holds them: 6"`) {
			t.Errorf("while they are held: %s", got)
		}
		time.Sleep(2 * time.Minute)
		if got := detail(); !strings.Contains(got, `"heads: 6, of which take requests: 0"`) {
			t.Errorf("in the end: %s", got)
		}
	})
}
