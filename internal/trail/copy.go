package trail

import (
	"context"

	"headway/internal/audit"
)

// Copy passes write the matching lines of the trail under path, oldest first
// and byte for byte with newlines. A line is valid until write returns. The
// copy verifies if the trail does. Limit and Cursor of q are ignored, lines
// that are no records skipped, hashes not checked. It stops at the first error
// of write.
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
