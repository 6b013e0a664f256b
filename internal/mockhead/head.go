// Package mockhead is a simulated inference server: an OpenAI-compatible HTTP
// head whose time to first token, batching, KV cache and metrics follow from
// the work it really gets.
//
// [Head] runs an [engine.Engine] in real time, scaled by a speed, behind a
// listener. [Head.NewAgent] registers it with Headway and reports the engine's
// load.
package mockhead

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/engine"
)

// Options say what a head serves and how fast. Models is required.
type Options struct {
	Models         []string                 // names it answers to, the first is the model's own
	Profile        engine.Profile           // the zero value: the one for the first model's name
	Speed          float64                  // times faster than real, 0.01 to 1000; 0: 1
	MaxWaiting     int                      // requests that may wait, the next get 429; 0: 256
	StreamInterval int                      // tokens in a streamed chunk, as vLLM's --stream-interval; 0: 1
	MaxBody        int64                    // of a request; 0: 64 MiB
	Addr           string                   // where to listen; empty: a free port of 127.0.0.1
	Listener       net.Listener             // in place of Addr; the head closes it
	Record         int                      // requests that Received keeps; 0: none
	Control        bool                     // serve /faults, by which anyone who reaches the head breaks it
	Dies           func(*http.Request) bool // asked in the middle of each completion; true: its connection is cut; nil: never
	Logger         *slog.Logger
}

// Bounds of a head's HTTP side.
const (
	maxHeader      = 16 << 10
	maxConnections = 2048
	headerTimeout  = 5 * time.Second
	bodyTimeout    = 30 * time.Second
	idleTimeout    = 2 * time.Minute
	writeTimeout   = 10 * time.Second // for one chunk to a slow reader
	loadWindow     = 2 * time.Second  // of the rates that a head reports
	requestTimeout = 15 * time.Minute // from the whole body to the last token
)

// Head is a running inference server. It stops by [Head.Shutdown] or
// [Head.Close]; its goroutines are gone when either returns.
type Head struct {
	options   Options
	maxTokens int // of a request, prompt and answer
	seed      maphash.Seed
	started   time.Time
	runner    *runner
	metrics   *metrics
	server    *http.Server
	listener  net.Listener
	draining  atomic.Bool
	requests  atomic.Uint64 // for the ids of answers
	mux       *http.ServeMux
	faults    faults
	recorder  recorder
	running   context.Context // ends when the head stops
	cancel    context.CancelFunc
	done      sync.WaitGroup
}

// Start listens and serves. The end of ctx does not stop the head.
func Start(ctx context.Context, o Options) (*Head, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("start a head: %w", err)
	}
	e, err := engine.New(engine.Options{
		Profile: o.Profile, MaxWaiting: o.MaxWaiting, Window: time.Duration(o.Speed * float64(loadWindow)),
	})
	if err != nil {
		return nil, fmt.Errorf("start a head: %w", err)
	}
	listener := o.Listener
	if listener == nil {
		var lc net.ListenConfig
		if listener, err = lc.Listen(ctx, "tcp", o.Addr); err != nil {
			return nil, fmt.Errorf("start a head: %w", err)
		}
	}
	h := &Head{
		options: o, maxTokens: e.MaxTokens(), seed: maphash.MakeSeed(), started: time.Now(),
		runner: newRunner(e, o.Speed, o.StreamInterval), listener: listener,
	}
	h.recorder.limit = o.Record
	h.routes()
	h.server = &http.Server{
		Handler:           h,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState:         func(c net.Conn, s http.ConnState) { ofDoor(c).changed(s) },
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h.running, h.cancel = ctx, cancel
	h.done.Go(func() { h.runner.run(ctx) })
	h.done.Go(func() {
		err := h.server.Serve(newDoor(listener, &h.faults))
		if !errors.Is(err, http.ErrServerClosed) {
			o.Logger.Error("head stopped serving", "address", listener.Addr().String(), "error", err)
		}
	})
	return h, nil
}

func (o *Options) complete() error {
	if len(o.Models) == 0 || slices.Contains(o.Models, "") {
		return errors.New("a head needs the names of its models")
	}
	o.Models = slices.Clone(o.Models)
	o.Profile = cmp.Or(o.Profile, engine.ProfileForModel(o.Models[0]))
	o.Speed = cmp.Or(o.Speed, 1)
	o.MaxWaiting = cmp.Or(o.MaxWaiting, 256)
	o.StreamInterval = cmp.Or(o.StreamInterval, 1)
	o.MaxBody = cmp.Or(o.MaxBody, 64<<20)
	o.Addr = cmp.Or(o.Addr, "127.0.0.1:0")
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if !(o.Speed >= 0.01 && o.Speed <= 1000) {
		return fmt.Errorf("a speed of %v, want 0.01 to 1000", o.Speed)
	}
	if o.StreamInterval < 1 {
		return fmt.Errorf("a stream interval of %d tokens, want at least 1", o.StreamInterval)
	}
	return nil
}

func (h *Head) routes() {
	var handler http.Handler
	h.metrics, handler = newMetrics(h, prometheus.NewRegistry())
	mux := http.NewServeMux()
	paths := make(map[string]bool)
	handle := func(method, path string, serve http.Handler) {
		mux.Handle(method+" "+path, serve)
		paths[path] = true
	}
	for path, serve := range map[string]http.Handler{
		"/v1/chat/completions":      h.generate(decodeText(true), writeError),
		"/v1/completions":           h.generate(decodeText(false), writeError),
		"/v1/responses":             h.generate(decodeResponses, writeError),
		"/v1/messages":              h.generate(decodeMessages, writeMessagesError),
		"/v1/messages/count_tokens": h.do(countTokens, writeMessagesError),
		"/v1/audio/transcriptions":  h.generate(decodeTranscript("transcribe"), writeError),
		"/v1/audio/translations":    h.generate(decodeTranscript("translate"), writeError),
		"/v1/audio/speech":          h.do(speech, writeError),
		"/v1/embeddings":            h.do(embeddings, writeError),
		"/v1/rerank":                h.do(rerank, writeError),
		"/v1/score":                 h.do(score, writeError),
		"/v1/moderations":           h.do(moderations, writeError),
		"/v1/images/generations":    h.do(generateImages, writeError),
		"/v1/images/edits":          h.do(editImages, writeError),
		"/tokenize":                 h.do(tokenize, writeError),
		"/v1/tokenize":              h.do(tokenize, writeError),
		"/detokenize":               h.do(detokenize, writeError),
		"/v1/detokenize":            h.do(detokenize, writeError),
	} {
		handle("POST", path, serve)
	}
	handle("GET", "/v1/models", http.HandlerFunc(h.models))
	handle("GET", "/v1/models/{id...}", http.HandlerFunc(h.model))
	handle("GET", "/health", http.HandlerFunc(h.health))
	handle("GET", "/metrics", handler)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &apiError{http.StatusNotFound, "", "Not Found"})
	})
	for path := range paths {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			writeError(w, &apiError{http.StatusMethodNotAllowed, "", "Method Not Allowed"})
		})
	}
	if h.options.Control {
		h.control(mux)
	}
	h.mux = mux
}

// decodeText decodes a chat or a text completion.
func decodeText(chat bool) func(*http.Request, []byte) (*completion, error) {
	return func(r *http.Request, body []byte) (*completion, error) {
		if err := isJSON(r); err != nil {
			return nil, err
		}
		return decodeCompletion(body, chat)
	}
}

// URL is the head's base address, such as http://127.0.0.1:40001.
func (h *Head) URL() string { return "http://" + h.listener.Addr().String() }

// Models are the names that the head serves.
func (h *Head) Models() []string { return slices.Clone(h.options.Models) }

// MaxInFlight is the number of requests that the head works on at once.
func (h *Head) MaxInFlight() int { return h.options.Profile.MaxSequences }

// Load is the head's work now.
func (h *Head) Load() engine.Load {
	l, _ := h.runner.load()
	return l
}

// Shutdown refuses new requests with 503, lets the others finish until ctx
// ends, and stops. It returns ctx's error if requests were cut.
func (h *Head) Shutdown(ctx context.Context) error {
	h.draining.Store(true)
	err := h.server.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("drain the head: %w", err)
	}
	h.Close()
	return err
}

// Close stops at once and cuts connections, like a crash. A second call does
// nothing.
func (h *Head) Close() {
	_ = h.server.Close() // the listener is gone either way
	h.cancel()
	h.done.Wait()
}

func (h *Head) health(w http.ResponseWriter, _ *http.Request) {
	if h.draining.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (h *Head) models(w http.ResponseWriter, _ *http.Request) {
	data := []any{}
	for i := range h.options.Models {
		data = append(data, h.describe(i))
	}
	writeJSON(w, http.StatusOK, object{"object": "list", "data": data})
}

func (h *Head) model(w http.ResponseWriter, r *http.Request) {
	i := slices.Index(h.options.Models, r.PathValue("id"))
	if i < 0 {
		writeError(w, asAPIError(h.serves(r.PathValue("id"))))
		return
	}
	writeJSON(w, http.StatusOK, h.describe(i))
}

// describe is a model's object. Names after the first are adapters of it.
func (h *Head) describe(i int) object {
	m := object{
		"id": h.options.Models[i], "object": "model", "created": h.started.Unix(), "owned_by": "headway",
		"root": h.options.Models[i], "parent": nil, "max_model_len": h.maxTokens,
	}
	if i > 0 {
		m["parent"] = h.options.Models[0]
	}
	return m
}

// nextID is unique to an answer of the head.
func (h *Head) nextID() string {
	return strconv.FormatUint(mix(uint64(h.started.UnixNano()), h.requests.Add(1)), 16)
}
