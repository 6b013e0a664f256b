package history

import (
	"bufio"
	"compress/gzip"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"headway/internal/disk"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// snapshotVersion is that of the file's layout; a file of another is not read.
const snapshotVersion = 1

// storedSeries is a series in the snapshot.
type storedSeries struct {
	Labels map[string]string
	Chunks []storedChunk
}

type storedChunk struct {
	From, To int64
	Data     []byte
}

// Save writes the history, whole or not at all. What goes wrong costs only the
// snapshot.
func (s *Store) Save() {
	if s.o.File == "" {
		return
	}
	err := disk.ReplaceWith(s.o.File, 0o600, s.encode)
	if err == nil {
		err = s.log.begin(s.o.Now())
	}
	if err != nil && !s.failing {
		s.o.Log.Warn("the history of the monitor could not be written; it is kept in memory", "file", s.o.File, "error", err)
	}
	s.failing = err != nil
}

// Keep writes what a step brought to the log beside the snapshot. If that cannot
// be done, or the log gets too long, a snapshot is taken.
func (s *Store) Keep(now time.Time) {
	if s.o.File == "" {
		return
	}
	samples := s.taken()
	if !s.log.begun() && !s.failing {
		s.Save() // it has the samples
		return
	}
	if err := s.log.write(samples, now); err != nil || s.log.size > maxRecent {
		if s.Save(); s.failing {
			_ = s.log.close()
		}
	}
}

func (s *Store) encode(w io.Writer) error {
	buffered := bufio.NewWriter(w)
	zipped, err := gzip.NewWriterLevel(buffered, gzip.BestSpeed)
	if err != nil {
		return err
	}
	out := gob.NewEncoder(zipped)
	if err := out.Encode(snapshotVersion); err != nil {
		return err
	}
	for _, one := range s.all() {
		if err := out.Encode(one); err != nil {
			return fmt.Errorf("write a series: %w", err)
		}
	}
	return errors.Join(zipped.Close(), buffered.Flush())
}

// all is a view of every series.
func (s *Store) all() []storedSeries {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]storedSeries, 0, s.count)
	for _, named := range s.byName {
		for _, one := range named {
			stored := storedSeries{Labels: one.labels.Map()}
			for i, c := range one.chunks {
				data := c.Bytes()
				if i == len(one.chunks)-1 {
					data = slices.Clone(data)
				}
				stored.Chunks = append(stored.Chunks, storedChunk{c.from, c.to, data})
			}
			list = append(list, stored)
		}
	}
	return list
}

// restore reads the history: the snapshot, and the log of what came after it.
// What cannot be read costs only the history; what is too old is left out.
func (s *Store) restore() {
	if s.o.File == "" {
		return
	}
	if err := s.restoreSnapshot(); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.o.Log.Warn("the history of the monitor cannot be read; it starts empty", "file", s.o.File, "error", err)
	}
	oldest := timestamp.FromTime(s.o.Now()) - s.o.Retention.Milliseconds()
	s.mu.Lock()
	defer s.mu.Unlock()
	err := readRecent(s.log.path, func(l labels.Labels, at int64, value float64) {
		if at < oldest {
			return
		}
		if one := s.find(l); one != nil {
			_ = s.write(one, at, value) // in memory
		}
	})
	if err != nil {
		s.o.Log.Warn("the recent history of the monitor cannot be read to its end", "file", s.log.path, "error", err)
	}
	s.logged = true
}

func (s *Store) restoreSnapshot() error {
	f, err := os.Open(s.o.File)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	zipped, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return err
	}
	in := gob.NewDecoder(zipped)
	var version int
	if err := in.Decode(&version); err != nil || version != snapshotVersion {
		return fmt.Errorf("it has version %d, not %d: %w", version, snapshotVersion, err)
	}
	fresh := newStore(s.o)
	oldest := timestamp.FromTime(s.o.Now()) - s.o.Retention.Milliseconds()
	for {
		var stored storedSeries
		if err := in.Decode(&stored); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if err := fresh.put(stored, oldest); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.series, s.byName, s.count = fresh.series, fresh.byName, fresh.count
	return nil
}

// Close ends the log.
func (s *Store) Close() error { return s.log.close() }

// put adds a series as it was stored, after each sample was read once. The last
// chunk is closed: what comes now begins another.
func (s *Store) put(stored storedSeries, oldest int64) error {
	var chunks []*chunk
	for _, c := range stored.Chunks {
		if c.To < oldest {
			continue
		}
		read := chunkenc.NewXORChunk()
		if len(c.Data) < chunkHeader {
			return errors.New("a chunk is too short")
		}
		read.Reset(c.Data)
		it := read.Iterator(nil)
		last := int64(-1 << 62)
		for it.Next() == chunkenc.ValFloat {
			t := it.AtT()
			if t <= last || t < c.From || t > c.To {
				return errors.New("a chunk's samples are out of order")
			}
			last = t
		}
		if it.Err() != nil || last != c.To || len(chunks) > 0 && chunks[len(chunks)-1].to >= c.From {
			return errors.Join(errors.New("a chunk cannot be read"), it.Err())
		}
		chunks = append(chunks, &chunk{read, c.From, c.To})
	}
	if len(chunks) == 0 {
		return nil
	}
	if one := s.find(labels.FromMap(stored.Labels)); one != nil {
		one.chunks = chunks
	}
	return nil
}

// chunkHeader is the size of an empty chunk.
const chunkHeader = 2
