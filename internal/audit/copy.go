package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	files, err := listTrail(ctx, path)
	if err != nil {
		return false, err
	}
	for i, file := range files {
		if file.first == 0 || file.first <= c.done {
			continue
		}
		if i+1 < len(files) && files[i+1].began != "" && files[i+1].began < c.since {
			continue // all of it is older
		}
		in, renamed, err := file.listed()
		if err != nil || renamed {
			return renamed, err
		}
		if err := errors.Join(c.lines(ctx, in), in.Close()); err != nil {
			return false, err
		}
		if i+1 == len(files) || files[i+1].first != file.first {
			c.done = file.first
		}
	}
	return false, nil
}

// lines copies a file.
func (c *copier) lines(ctx context.Context, in io.Reader) error {
	l := newLines(in, 64<<10)
	for n := 0; ; n++ {
		if n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line, state, err := l.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the audit trail: %w", err)
		}
		m, ok := split(line)
		if state != whole || !ok || !c.matches(&m) {
			continue
		}
		if err := c.write(line[:len(line)+1]); err != nil { // the newline is behind it
			return err
		}
	}
}
