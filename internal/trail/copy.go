package trail

import (
	"context"
	"errors"
	"fmt"
	"io"

	"headway/internal/audit"
)

// Copy gives write the lines of the trail under path that q asks for, the oldest
// first, byte for byte as they stand in its files, with their newlines; they are
// valid until write returns. All of them together are a trail that Verify finds
// sound if it finds this one sound. Limit and Cursor of q do not count, lines
// that are no records are left out, and no hash is checked. It ends at the first
// error of write, and keeps one line in memory.
func Copy(ctx context.Context, path string, q Query, write func(line []byte) error) error {
	q.Limit, q.Cursor = 0, ""
	s, err := newSearch(q)
	if err != nil {
		return err
	}
	c := &copier{search: s, write: write}
	for range 5 { // files may be renamed while they are read
		again, err := c.files(ctx, path)
		if err != nil || !again {
			return err
		}
	}
	return errors.New("copy the audit trail: its files are renamed all the time")
}

// copier is a walk over a trail from its beginning.
type copier struct {
	*search
	write func(line []byte) error
	done  uint64 // sequence that the last file began with that was copied
}

// files copies one file after the other. again is set when one was renamed
// before it was opened.
func (c *copier) files(ctx context.Context, path string) (again bool, err error) {
	files, err := audit.Files(ctx, path)
	if err != nil {
		return false, err
	}
	for i, file := range files {
		if file.First == 0 || file.First <= c.done {
			continue
		}
		if i+1 < len(files) && files[i+1].Began != "" && files[i+1].Began < c.since {
			continue // all of it is older
		}
		in, renamed, err := open(&file)
		if err != nil || renamed {
			return renamed, err
		}
		if err := errors.Join(c.lines(ctx, in), in.Close()); err != nil {
			return false, err
		}
		if i+1 == len(files) || files[i+1].First != file.First {
			c.done = file.First
		}
	}
	return false, nil
}

// lines copies a file.
func (c *copier) lines(ctx context.Context, in io.Reader) error {
	l := audit.NewLines(in, 64<<10)
	for n := 0; ; n++ {
		if n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line, state, err := l.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the audit trail: %w", err)
		}
		m, ok := audit.Split(line)
		if state != audit.Whole || !ok || !c.matches(&m) {
			continue
		}
		if err := c.write(line[:len(line)+1]); err != nil { // the newline is behind it
			return err
		}
	}
}
