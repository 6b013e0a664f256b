package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"headway/api"
)

const (
	eventsPath  = "/api/v1/events"
	lettersPath = "/api/v1/queue/dead-letters"
)

// Bounds of a stream. The router sends something at least every 15 s, so a
// longer silence is a broken connection.
const (
	maxSilence    = 45 * time.Second
	maxEventLine  = 4 << 20
	firstRetry    = time.Second
	longestRetry  = 30 * time.Second
	steadySeconds = 60 // of a stream after which the next retry is soon again
)

// Notice is an item of [Client.Watch] or a [Socket]; exactly one field is set.
type Notice struct {
	Snapshot *api.Snapshot    // the fleet as it is, or one part of it
	Event    *api.Event       // something that happened
	Lost     *api.Lost        // events are missing; snapshots follow, unless it is of decisions alone
	Admin    *api.AdminNotice // what the operator wants of a head that was registered on this Socket
}

// A WatchOption changes how Watch works.
type WatchOption func(*watcher)

// OnConnection calls f with nil after each connect, and with the error after
// each failed or broken connection.
func OnConnection(f func(error)) WatchOption { return func(w *watcher) { w.connection = f } }

// Watch follows events until ctx ends: first snapshots, then each event. After
// a broken connection it resumes behind the last event or, where that is
// impossible, with a Lost and new Snapshots. It ends with an error that a retry
// would not resolve, such as ErrUnauthorized or ErrInvalid; others are only
// logged.
func (c *Client) Watch(ctx context.Context, s api.Subscription, options ...WatchOption) iter.Seq2[Notice, error] {
	return func(yield func(Notice, error) bool) {
		w := &watcher{client: c, want: s, last: s.LastEventID, retry: firstRetry, connection: func(error) {}}
		for _, o := range options {
			o(w)
		}
		for failures := 0; ; failures++ {
			begin := time.Now()
			stopped, err := w.stream(ctx, yield)
			if stopped || ctx.Err() != nil {
				return
			}
			if refused, ok := errors.AsType[*Error](err); ok && refused.Status < http.StatusInternalServerError &&
				refused.Status != http.StatusTooManyRequests && refused.Status != http.StatusRequestTimeout || errors.Is(err, errToken) || errors.Is(err, errRedirect) {
				yield(Notice{}, fmt.Errorf("watch: %w", err))
				return
			}
			w.connection(err)
			if time.Since(begin) > steadySeconds*time.Second {
				failures = 0
			}
			c.log.Debug("the stream of events broke; it is opened again", "error", err)
			wait := min(longestRetry, w.retry<<min(failures, 5))
			if !pause(ctx, time.Duration(float64(wait)*(0.5+c.random()/2))) {
				return
			}
		}
	}
}

type watcher struct {
	client     *Client
	want       api.Subscription
	connection func(error) // see OnConnection
	last       string      // id of the last event
	retry      time.Duration
}

// stream reads one connection. stopped means that the consumer has ended the
// loop.
func (w *watcher) stream(ctx context.Context, yield func(Notice, error) bool) (stopped bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(maxSilence, cancel)
	defer silence.Stop()
	query := values("types", strings.Join(w.want.Types, ","), "head", w.want.Head, "model_type", w.want.ModelType, "region", w.want.Region)
	k := &call{method: http.MethodGet, path: eventsPath, query: query, header: http.Header{"Accept": {"text/event-stream"}}}
	if w.last != "" {
		k.header.Set("Last-Event-ID", w.last)
	}
	body, err := w.client.open(ctx, k)
	if err != nil {
		return false, err
	}
	defer func() { _ = body.Close() }()
	w.connection(nil)
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 4096), maxEventLine)
	var event, id string
	var data []byte
	for lines.Scan() {
		silence.Reset(maxSilence)
		line := lines.Bytes()
		if len(line) > 0 {
			name, value, _ := bytes.Cut(line, []byte(":"))
			value = bytes.TrimPrefix(value, []byte(" "))
			switch string(name) {
			case "event":
				event = string(value)
			case "id":
				id = string(value)
			case "data":
				data = append(data, value...)
			case "retry":
				if ms, err := strconv.Atoi(string(value)); err == nil && ms > 0 {
					w.retry = min(longestRetry, time.Duration(ms)*time.Millisecond)
				}
			}
			continue
		}
		notice, known, err := noticeOf(event, data)
		if err != nil {
			return false, err
		}
		if id != "" {
			w.last = id
		}
		if event, id, data = "", "", data[:0]; known && !yield(notice, nil) {
			return true, nil
		}
	}
	if err := lines.Err(); err != nil {
		return false, noAnswer(ctx, err)
	}
	return false, fmt.Errorf("%w: the stream ended", ErrUnavailable)
}

// noticeOf decodes a notice. Unknown ones are ignored.
func noticeOf(event string, data []byte) (n Notice, known bool, err error) {
	var into any
	switch event {
	case "", api.MessageBye:
		return n, false, nil
	case api.MessageSnapshot:
		n.Snapshot = new(api.Snapshot)
		into = n.Snapshot
	case api.MessageLost:
		n.Lost = new(api.Lost)
		into = n.Lost
	default:
		n.Event = new(api.Event)
		into = n.Event
	}
	return n, true, decode(data, into)
}

// DeadLetters lists the message queue's failed commands, oldest first.
func (c *Client) DeadLetters(ctx context.Context) iter.Seq2[api.DeadLetter, error] {
	return pages[api.DeadLetter](ctx, c, "list the dead letters", lettersPath, url.Values{})
}

// DeadLetter returns one, or ErrNotFound.
func (c *Client) DeadLetter(ctx context.Context, number uint64) (api.DeadLetter, error) {
	return get[api.DeadLetter](ctx, c, fmt.Sprintf("get dead letter %d", number), letterPath(number))
}

// RetryDeadLetter queues the command of a dead letter again.
func (c *Client) RetryDeadLetter(ctx context.Context, number uint64) error {
	return c.carryOut(ctx, &call{what: fmt.Sprintf("retry dead letter %d", number), method: http.MethodPost, path: letterPath(number) + "/retry"})
}

// PurgeDeadLetter deletes a dead letter.
func (c *Client) PurgeDeadLetter(ctx context.Context, number uint64) error {
	return c.carryOut(ctx, &call{what: fmt.Sprintf("purge dead letter %d", number), method: http.MethodDelete, path: letterPath(number)})
}

func letterPath(number uint64) string { return lettersPath + "/" + strconv.FormatUint(number, 10) }
