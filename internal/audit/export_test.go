package audit

import (
	"context"
	"os"

	dto "github.com/prometheus/client_model/go"
)

// Operate is Begin with an operation whose End has an error.
func (j *Journal) Operate(ctx context.Context, e Entry) (*operation, error) { return j.begin(ctx, e) }

// Lenient is Begin of a lenient journal.
func (j *Journal) Lenient(ctx context.Context, e Entry) (EndFunc, error) {
	j.o.Lenient = true
	defer func() { j.o.Lenient = false }()
	return j.Begin(ctx, e)
}

// WithFaults returns o with a disk that writes and syncs like this; nil leaves
// it as it is.
func (o Options) WithFaults(write func(*os.File, []byte) (int, error), sync func(*os.File) error) Options {
	o.write, o.sync = write, sync
	return o
}

// Write is how the disk of o writes.
func (o Options) Write() func(*os.File, []byte) (int, error) { return o.write }

// Datasync is what a journal waits for the disk with.
var Datasync = datasync

// Line is how a checkpoint is written, and ParseCheckpoint how it is read.
func (c Checkpoint) Line() []byte {
	line, err := c.line()
	if err != nil {
		panic(err)
	}
	return line
}

func ParseCheckpoint(text []byte) (Checkpoint, bool) { return parseCheckpoint(text) }

// Fit makes an entry short and clean.
func (e Entry) Fit() Entry { return e.fit() }

// MaxOpen is how many operations may be open.
const MaxOpen = maxOpen

// Syncs is how often the disk was waited for.
func (j *Journal) Syncs() uint64 {
	var m dto.Metric
	if err := j.counts.syncs.Write(&m); err != nil {
		panic(err)
	}
	return m.GetHistogram().GetSampleCount()
}

// Record writes one record and returns its id when it is durable. The error
// wraps ErrUnavailable. It waits at most MaxWait.
func (j *Journal) Record(ctx context.Context, stage Stage, e Entry) (id string, err error) {
	p := newPending(stage, e, j.o.Now())
	if err := j.submit(ctx, p); err != nil {
		return "", err
	}
	return p.id, nil
}
