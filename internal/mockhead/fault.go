package mockhead

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// Kind is a way in which a head goes wrong.
type Kind string

// The kinds of faults. Those "after events" happen when so many events of a
// stream, or after 0 the headers, were sent; a whole answer counts as one.
const (
	ResetAccept   Kind = "reset_accept"   // a connection is reset when it is accepted
	ResetRequest  Kind = "reset_request"  // reset after the request was read, nothing is answered
	Reset         Kind = "reset"          // reset after events
	Cut           Kind = "cut"            // closed after events, without the end of the body
	End           Kind = "end"            // a clean end of the body after events, without [DONE]
	HalfClose     Kind = "half_close"     // the head closes its side after events, and goes on to read
	StallHeaders  Kind = "stall_headers"  // silent for a time, before anything is sent
	Stall         Kind = "stall"          // silent for a time after events
	StallInside   Kind = "stall_inside"   // the same in the middle of the next event
	Drip          Kind = "drip"           // one byte at a time
	Garbage       Kind = "garbage"        // an answer that is no HTTP
	EndlessHeader Kind = "endless_header" // header lines without an end, to a bound of 64 MiB
	Status        Kind = "status"         // an error status, with Retry-After if set
	Redirect      Kind = "redirect"       // 307 to a location
	ErrorEvent    Kind = "error_event"    // {"error":…} in the stream after events, then its end
	ShortBody     Kind = "short_body"     // fewer bytes than Content-Length says
	LongBody      Kind = "long_body"      // more bytes than Content-Length says
	IdleClose     Kind = "idle_close"     // connections are closed after a time of idleness
	IdleReset     Kind = "idle_reset"     // a request on a connection that was idle for a time is reset as it arrives
	Framing       Kind = "framing"        // the events of a stream are written in another form
	LongLine      Kind = "long_line"      // after events comes one of Size bytes (8 MiB)
	Usage         Kind = "usage"          // where and how the stream says its usage
)

// Framings of a stream, and forms of usage, that Fault.Form names.
const (
	FormCRLF     = "crlf"     // lines end with CR LF
	FormCR       = "cr"       // lines end with CR
	FormNoSpace  = "no_space" // data: without a space
	FormSplit    = "split"    // the data of an event on several lines
	FormComments = "comments" // comment lines between and in events
	FormNamed    = "named"    // event:, id: and retry: lines
	FormNoEnd    = "no_end"   // no blank line after the last event
	FormBOM      = "bom"      // a byte order mark at the start
	FormBatch    = "batch"    // the whole stream in one write
	FormBytes    = "bytes"    // each byte in a write of its own

	FormUsageParts = "parts" // prompt in the first chunk, completion in the last, zeros between
	FormUsageEach  = "each"  // the sum so far in each chunk
	FormUsageLast  = "last"  // in the chunk of finish_reason, none without choices
	FormUsageNull  = "null"  // null in each but the last
	FormUsageNone  = "none"  // nowhere, though it was asked for
)

// Header is the value of a header field. In JSON it may be a number too.
type Header string

// UnmarshalJSON implements json.Unmarshaler.
func (h *Header) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && (text[0] == '-' || text[0] >= '0' && text[0] <= '9') {
		*h = Header(text)
		return nil
	}
	return json.Unmarshal(text, (*string)(h))
}

// Fault is what goes wrong and for which requests. Kind is required.
type Fault struct {
	Kind       Kind    `json:"kind"`
	Path       string  `json:"path,omitzero"`    // of requests, a * at its end stands for any rest; "": /v1/*
	Times      int     `json:"times,omitzero"`   // for so many requests; 0: until it is removed
	Share      float64 `json:"share,omitzero"`   // of the requests, evenly; 0: all
	After      int     `json:"after,omitzero"`   // events
	Seconds    float64 `json:"seconds,omitzero"` // 0: until the client leaves or the fault is removed
	Status     int     `json:"status,omitzero"`  // 0: 500
	RetryAfter Header  `json:"retry_after,omitzero"`
	Body       string  `json:"body,omitzero"`     // of a status or an error event, or the garbage
	Location   string  `json:"location,omitzero"` // of a redirect
	Size       int     `json:"size,omitzero"`     // bytes of a long line, or by which a length is wrong
	Form       string  `json:"form,omitzero"`     // of a framing or of the usage
}

// Injection is a fault of a head until it is removed.
type Injection struct {
	fault   Fault
	faults  *faults
	removed chan struct{}
	healed  chan struct{}

	// Guarded by the mutex of faults.
	seen int // requests that it was for
	hits int
	gone bool
}

// Hits is the number of requests or connections that met the fault.
func (i *Injection) Hits() int {
	i.faults.mu.Lock()
	defer i.faults.mu.Unlock()
	return i.hits
}

// Remove ends the fault, and its stalls. A second call does nothing.
func (i *Injection) Remove() {
	i.faults.mu.Lock()
	defer i.faults.mu.Unlock()
	if i.gone {
		return
	}
	i.gone = true
	close(i.removed)
	i.faults.list = slices.DeleteFunc(i.faults.list, func(other *Injection) bool { return other == i })
}

// faults are what is injected into a head; the oldest that fits a request is
// taken.
type faults struct {
	mu     sync.Mutex
	list   []*Injection
	healed chan struct{} // closed when all are removed
}

const maxFaults = 100

// Inject makes requests fail from now on.
func (h *Head) Inject(f Fault) (*Injection, error) {
	if err := f.complete(); err != nil {
		return nil, fmt.Errorf("inject a fault: %w", err)
	}
	fs := &h.faults
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if len(fs.list) >= maxFaults {
		return nil, fmt.Errorf("inject a fault: there are %d", maxFaults)
	}
	if fs.healed == nil {
		fs.healed = make(chan struct{})
	}
	i := &Injection{fault: f, faults: fs, removed: make(chan struct{}), healed: fs.healed}
	fs.list = append(fs.list, i)
	return i, nil
}

// Heal removes all faults, and ends the stalls of those that had their requests.
func (h *Head) Heal() {
	fs := &h.faults
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.list = nil
	if fs.healed != nil {
		close(fs.healed)
		fs.healed = nil
	}
}

var (
	framings   = []string{FormCRLF, FormCR, FormNoSpace, FormSplit, FormComments, FormNamed, FormNoEnd, FormBOM, FormBatch, FormBytes}
	usageForms = []string{FormUsageParts, FormUsageEach, FormUsageLast, FormUsageNull, FormUsageNone}
	kinds      = []Kind{
		ResetAccept, ResetRequest, Reset, Cut, End, HalfClose, StallHeaders, Stall, StallInside, Drip, Garbage, EndlessHeader,
		Status, Redirect, ErrorEvent, ShortBody, LongBody, IdleClose, IdleReset, Framing, LongLine, Usage,
	}
)

const maxLongLine = 64 << 20

func (f *Fault) complete() error {
	if !slices.Contains(kinds, f.Kind) {
		return fmt.Errorf("kind is %q, want one of %q", f.Kind, kinds)
	}
	f.Path = cmp.Or(f.Path, "/v1/*")
	f.Status = cmp.Or(f.Status, http.StatusInternalServerError)
	switch f.Kind {
	case LongLine:
		f.Size = cmp.Or(f.Size, 8<<20)
	case ShortBody, LongBody:
		f.Size = cmp.Or(f.Size, 10)
	case Framing:
		if !slices.Contains(framings, f.Form) {
			return fmt.Errorf("form is %q, want one of %q", f.Form, framings)
		}
	case Usage:
		if !slices.Contains(usageForms, f.Form) {
			return fmt.Errorf("form is %q, want one of %q", f.Form, usageForms)
		}
	case Redirect:
		if f.Location == "" {
			return errors.New("a redirect needs a location")
		}
	}
	switch {
	case !(f.Share >= 0 && f.Share <= 1):
		return fmt.Errorf("share is %v, want 0 to 1", f.Share)
	case f.Times < 0 || f.After < 0:
		return errors.New("times and after must not be negative")
	case !(f.Seconds >= 0 && f.Seconds <= 24*3600):
		return fmt.Errorf("seconds is %v, want 0 to a day", f.Seconds)
	case f.Size < 0 || f.Size > maxLongLine:
		return fmt.Errorf("size is %d, want 0 to %d", f.Size, maxLongLine)
	case f.Status < 300 || f.Status > 599:
		return fmt.Errorf("status is %d, want 300 to 599", f.Status)
	}
	return nil
}

func (f *Fault) duration() time.Duration { return time.Duration(f.Seconds * float64(time.Second)) }

// ofConnections are the kinds that no request meets in the usual way.
func ofConnections(k Kind) bool { return k == ResetAccept || k == IdleClose || k == IdleReset }

// match counts a request, or a connection for the kind, and returns the fault
// that it meets, or nil.
func (fs *faults) match(fits func(*Fault) bool) *Injection {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for at, i := range fs.list {
		if !fits(&i.fault) {
			continue
		}
		i.seen++
		share := cmp.Or(i.fault.Share, 1)
		if int(float64(i.seen)*share) == int(float64(i.seen-1)*share) {
			continue
		}
		if i.hits++; i.hits == i.fault.Times {
			fs.list = slices.Delete(fs.list, at, at+1)
		}
		return i
	}
	return nil
}

func (fs *faults) ofRequest(path string) *Injection {
	return fs.match(func(f *Fault) bool {
		start, open := strings.CutSuffix(f.Path, "*")
		return !ofConnections(f.Kind) && (path == f.Path || open && strings.HasPrefix(path, start))
	})
}

func (fs *faults) ofConnection(k Kind, idle time.Duration) *Injection {
	return fs.match(func(f *Fault) bool { return f.Kind == k && idle >= f.duration() })
}

// idleClose is when idle connections are closed, if they are.
func (fs *faults) idleClose() (time.Duration, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, i := range fs.list {
		if i.fault.Kind == IdleClose {
			return i.fault.duration(), true
		}
	}
	return 0, false
}

// control lets a script inject and remove faults: POST a fault to /faults,
// DELETE /faults for all.
func (h *Head) control(mux *http.ServeMux) {
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		err := json.UnmarshalRead(http.MaxBytesReader(w, r.Body, 1<<20), &f, json.RejectUnknownMembers(true))
		if err == nil {
			_, err = h.Inject(f)
		}
		if err != nil {
			text := err.Error()
			if wrong, ok := errors.AsType[*json.SemanticError](err); ok && wrong.JSONKind != 0 && wrong.Err == nil {
				text = fmt.Sprintf("%s: a JSON %s does not fit", wrong.JSONPointer, wrong.JSONKind)
			}
			writeError(w, invalid("", "%s", text))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) {
		h.Heal()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) {
		h.faults.mu.Lock()
		list := []object{}
		for _, i := range h.faults.list {
			list = append(list, object{"fault": i.fault, "hits": i.hits})
		}
		h.faults.mu.Unlock()
		writeJSON(w, http.StatusOK, object{"faults": list})
	})
}
