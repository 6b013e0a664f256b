package trail

import (
	"context"

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
	w := &walk{path: path, since: s.since}
	defer w.close()
	for {
		if more, err := w.next(ctx); err != nil || !more {
			return err
		}
		if err := s.copy(ctx, w, write); err != nil {
			return err
		}
	}
}

// copy writes the lines of one file.
func (s *search) copy(ctx context.Context, w *walk, write func(line []byte) error) error {
	var out []byte
	for n := 0; ; n++ {
		if n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line, err := w.line()
		if err != nil || line == nil {
			return err
		}
		if m, ok := audit.Split(line); !ok || !s.matches(&m) {
			continue
		}
		out = append(append(out[:0], line...), '\n')
		if err := write(out); err != nil {
			return err
		}
	}
}
