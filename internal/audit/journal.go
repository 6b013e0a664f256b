package audit

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	// ErrUnavailable reports a record that was not made durable: disk full,
	// read-only or slow, or journal closed. A record that is written after its
	// caller gave up is followed by a result that says so.
	ErrUnavailable = errors.New("the audit trail cannot be written")

	// ErrDamaged reports a trail that cannot be continued.
	ErrDamaged = errors.New("the audit trail is damaged")

	// ErrInUse reports a trail that another process writes.
	ErrInUse = errors.New("the audit trail is in use by another process")
)

// Options are what a Journal is made of.
type Options struct {
	Path            string                // required; its directory must exist
	SideDir         string                // takes the checkpoint and a torn line where no files can be made in the directory of Path, as in /var/log; "": there is none
	Node            string                // names this instance in each record; "": the host name
	MaxBytes        int64                 // size at which the file is closed and the next begins; 0: 100 MiB
	Keep            int                   // closed files that are kept; 0: all
	MinFreeBytes    int64                 // free space on the disk below which nothing more is written; 0: to the last byte
	MaxWait         time.Duration         // that a caller waits for the disk; 0: 5 s
	CheckpointEvery time.Duration         // 0: 1 min
	Lenient         bool                  // an operation whose intent cannot be written is not refused: the intent is queued
	SigningKey      ed25519.PrivateKey    // signs checkpoints; nil: they are not signed
	Log             *slog.Logger          // required
	Metrics         prometheus.Registerer // nil: not registered
	Now             func() time.Time      // nil: time.Now

	// Faults of the disk, for tests.
	write func(*os.File, []byte) (int, error)
	sync  func(*os.File) error
}

const (
	maxQueued    = 1024             // records whose callers wait
	maxBatch     = 512              // records in one write
	maxNotes     = 4096             // records without a waiting caller
	noteBytes    = 8 << 20          // and their size
	maxOpen      = 4096             // operations that have begun and not ended
	happenedWait = time.Second      // of Happened
	retry        = time.Second      // after a failure, for records without a waiting caller
	complain     = time.Minute      // between two log lines about the same failure
	foldFor      = 10 * time.Second // denied attempts that are alike and fall into this are one record
)

// Journal writes the trail of one node. It is safe for concurrent use. One
// goroutine owns the file until Close. It writes waiting records in one batch
// with one sync, then answers their callers.
type Journal struct {
	o       Options
	queue   chan *pending
	wake    chan struct{}   // a note waits, or a window of folding has begun
	reopens chan chan error // each is answered once
	quit    chan struct{}   // closed by Close
	done    chan struct{}   // closed when the writer has ended
	closing sync.Once
	closed  error // of the file; read after done
	notes   notes
	counts  counters
	newest  atomic.Pointer[Checkpoint] // of this process; nil: none yet

	lostBefore uint64 // records that the process before took with it
}

func (o Options) withDefaults() (Options, error) {
	if o.Path == "" || o.Log == nil {
		return o, errors.New("audit: Path and Log are required")
	}
	if o.MaxBytes < 0 || o.Keep < 0 || o.MinFreeBytes < 0 || o.MaxWait < 0 || o.CheckpointEvery < 0 {
		return o, errors.New("audit: no limit may be negative")
	}
	if o.SigningKey != nil && len(o.SigningKey) != ed25519.PrivateKeySize {
		return o, fmt.Errorf("audit: the signing key has %d bytes, an Ed25519 key has %d", len(o.SigningKey), ed25519.PrivateKeySize)
	}
	if o.Node == "" {
		name, err := os.Hostname()
		if err != nil {
			return o, fmt.Errorf("audit: find the name of this node: %w", err)
		}
		o.Node = name
	}
	o.Node = cut(o.Node, 256)
	o.MaxBytes = cmp.Or(o.MaxBytes, 100<<20)
	o.MaxWait = cmp.Or(o.MaxWait, 5*time.Second)
	o.CheckpointEvery = cmp.Or(o.CheckpointEvery, time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.write == nil {
		o.write = (*os.File).Write
	}
	if o.sync == nil {
		o.sync = datasync
	}
	path, err := filepath.Abs(o.Path)
	o.Path = path
	return o, err
}

// Open continues or creates the trail under Path and records that. Intents
// without a result of an earlier process get a record audit.unfinished. The
// error wraps ErrDamaged or ErrInUse, or is the system's. A full disk is no
// error.
func Open(o Options) (*Journal, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	j := &Journal{
		o: o, queue: make(chan *pending, maxQueued), wake: make(chan struct{}, 1), reopens: make(chan chan error),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	t, found, err := resume(o, &j.counts)
	if err != nil {
		return nil, err
	}
	j.register(o.Metrics) // not before: the caller may try another file
	known := ledger{o: &j.o}
	known.open()
	if j.lostBefore = known.before; known.before > 0 {
		found.lost = known.before
		o.Log.Error("records of the audit trail are lost", "records", known.before)
	}
	for _, e := range found.entries(o.Path) {
		j.keep(newPending(Result, e, o.Now()))
	}
	for _, d := range found.damage {
		o.Log.Error("the audit trail is damaged", "file", o.Path, "found", d)
	}
	w := &writer{
		Journal: j, trail: t, began: t.head.seq, checkpointed: found.checkpointed,
		nextCheckpoint: o.Now().Add(o.CheckpointEvery), ledger: known,
	}
	w.commit(nil)
	go w.run()
	return j, nil
}

type pending struct {
	stage Stage
	id    string
	ends  string // id of the intent whose result this is
	entry Entry  // fitted
	at    time.Time
	late  bool
	keeps bool // is kept where the disk fails after its caller has left
	state atomic.Int32
	err   error         // read after done
	done  chan struct{} // closed when it was answered; nil without a waiting caller
}

const (
	stateWaiting   = iota
	stateTaken     // by the writer
	stateAnswered  // by the writer
	stateWithdrawn // by the caller before it was taken; it is not written
	stateGivenUp   // by the caller after it was taken; the writer finishes it
)

func newPending(stage Stage, e Entry, at time.Time) *pending {
	return &pending{stage: stage, id: newID(at), entry: e.fit(), at: at}
}

func resultOf(id string, e Entry, at time.Time) *pending {
	return &pending{stage: Result, id: id + ResultSuffix, ends: id, entry: e.fit(), at: at, keeps: true}
}

// again returns p as a late record without a caller.
func (p *pending) again() *pending {
	return &pending{stage: p.stage, id: p.id, ends: p.ends, entry: p.entry, at: p.at, keeps: p.keeps, late: true}
}

// ResultSuffix is appended to an intent's id for its result.
const ResultSuffix = ".result"

// newID returns a UUID version 7: unique, and ordered by time.
func newID(at time.Time) string {
	var u [16]byte
	_, _ = rand.Read(u[6:]) // never fails
	ms := at.UnixMilli()
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6], u[8] = u[6]&0x0f|0x70, u[8]&0x3f|0x80
	text := hex.EncodeToString(u[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// submit queues p and waits for its answer.
func (j *Journal) submit(ctx context.Context, p *pending) error {
	p.done = make(chan struct{})
	ctx, cancel := context.WithTimeoutCause(ctx, j.o.MaxWait, fmt.Errorf("the disk did not answer within %v", j.o.MaxWait))
	defer cancel()
	closed := fmt.Errorf("%w: the journal is closed", ErrUnavailable)
	select {
	case <-j.quit:
		return closed
	default:
	}
	select {
	case j.queue <- p:
	case <-j.quit:
		return closed
	case <-ctx.Done():
		return j.refused(ctx)
	}
	select {
	case <-p.done:
		return p.err
	case <-j.done: // the writer answers all that it has taken before it ends
		select {
		case <-p.done:
			return p.err
		default:
			return closed
		}
	case <-ctx.Done():
		if p.giveUp() {
			return j.refused(ctx)
		}
		<-p.done
		return p.err
	}
}

func (j *Journal) refused(ctx context.Context) error {
	j.counts.failed.Add(1)
	return fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
}

// giveUp reports whether p was still unanswered.
func (p *pending) giveUp() bool {
	return p.state.CompareAndSwap(stateWaiting, stateWithdrawn) || p.state.CompareAndSwap(stateTaken, stateGivenUp)
}

func (p *pending) take() bool {
	return p.done == nil || p.state.CompareAndSwap(stateWaiting, stateTaken)
}

// answer reports whether a caller received the answer.
func (p *pending) answer(err error) bool {
	if p.done == nil {
		return true
	}
	p.err = err
	answered := p.state.CompareAndSwap(stateTaken, stateAnswered)
	close(p.done)
	return answered
}

// operation is an operation whose intent is recorded.
type operation struct {
	journal *Journal
	intent  *pending
	noted   bool // the intent is kept and not written yet
	ended   atomic.Bool
}

// Begin implements Recorder.
func (j *Journal) Begin(ctx context.Context, e Entry) (EndFunc, error) {
	op, err := j.begin(ctx, e)
	if err != nil {
		return nil, err
	}
	return func(outcome Outcome, reason string, after json.RawMessage) {
		_ = op.End(ctx, outcome, reason, after) // kept, counted and logged
	}, nil
}

func (j *Journal) begin(ctx context.Context, e Entry) (*operation, error) {
	e.Outcome = ""
	p := newPending(Intent, e, j.o.Now())
	err := j.submit(ctx, p)
	if err != nil && !j.o.Lenient {
		return nil, err
	}
	if err != nil {
		p = newPending(Intent, e, j.o.Now()).again() // the writer may still end the other
		j.keep(p)
	}
	return &operation{journal: j, intent: p, noted: err != nil}, nil
}

// End records the result, with the members of the intent and its id plus
// ".result". It waits for the disk even after ctx has ended. After an error,
// which wraps ErrUnavailable, the result is queued and written later, flagged
// late. Only the first call counts.
func (op *operation) End(ctx context.Context, outcome Outcome, reason string, after json.RawMessage) error {
	if op.ended.Swap(true) {
		return nil
	}
	j := op.journal
	e := op.intent.entry
	e.Outcome, e.Reason, e.Before, e.After = outcome, reason, nil, after
	p := resultOf(op.intent.id, e, j.o.Now())
	if op.noted { // keep the order
		j.keep(p)
		return nil
	}
	err := j.submit(context.WithoutCancel(ctx), p)
	if err != nil && p.state.Load() != stateGivenUp {
		j.keep(p.again())
	}
	return err
}

// Note records an event without waiting. It is written soon, or later and
// flagged late; a full queue drops and counts it. Similar denied attempts of
// one address within 10 s are folded into two records: the first, and a count
// of the rest. One address gets at most 8 records and a count.
func (j *Journal) Note(e Entry) {
	now := j.o.Now()
	if j.notes.fold(e, now) {
		return
	}
	j.keep(newPending(Result, e, now))
}

// Happened records an event that cannot be refused. It returns when the record
// is durable. If the trail cannot be written, or after a second, it queues the
// record as Note does.
func (j *Journal) Happened(e Entry) {
	p := newPending(Result, e, j.o.Now())
	if j.counts.down() {
		j.keep(p)
		return
	}
	p.keeps = true
	ctx, cancel := context.WithTimeout(context.Background(), happenedWait)
	defer cancel()
	if err := j.submit(ctx, p); err != nil && p.state.Load() != stateGivenUp {
		j.keep(p.again())
	}
}

func (j *Journal) keep(p *pending) {
	j.notes.add(p)
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Checkpoint is the newest checkpoint since the journal was opened, nil before
// the first.
func (j *Journal) Checkpoint() *Checkpoint { return j.newest.Load() }

// Reopen continues at once in a new file under the path, as logrotate leaves
// it. The error wraps ErrUnavailable.
func (j *Journal) Reopen() error {
	answer := make(chan error, 1)
	select {
	case j.reopens <- answer:
		return <-answer
	case <-j.done:
		return fmt.Errorf("%w: the journal is closed", ErrUnavailable)
	}
}

// Close writes queued records and a last checkpoint, and closes the file. Later
// records get ErrUnavailable.
func (j *Journal) Close() error {
	j.closing.Do(func() { close(j.quit) })
	<-j.done
	return j.closed
}
