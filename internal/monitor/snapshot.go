package monitor

import (
	"bufio"
	"compress/gzip"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

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

// save writes the history, whole or not at all. What goes wrong costs only the
// snapshot.
func (m *Monitor) save() {
	if m.o.Snapshot == "" {
		return
	}
	err := m.write()
	if err == nil {
		err = m.recent.begin(m.o.Now())
	}
	if err != nil && !m.failing {
		m.o.Log.Warn("the history of the monitor could not be written; it is kept in memory", "file", m.o.Snapshot, "error", err)
	}
	m.failing = err != nil
}

// keep writes what a step brought to the log beside the snapshot. If that cannot
// be done, or the log gets too long, a snapshot is taken.
func (m *Monitor) keep(now time.Time) {
	if m.o.Snapshot == "" {
		return
	}
	samples := m.store.taken()
	if m.unsaved || !m.recent.begun() && !m.failing {
		m.unsaved = false
		m.save() // it has the samples
		return
	}
	if err := m.recent.write(samples, now); err != nil || m.recent.size > maxRecent {
		if m.save(); m.failing {
			_ = m.recent.close()
		}
	}
}

func (m *Monitor) write() (err error) {
	f, err := os.OpenFile(m.o.Snapshot+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = errors.Join(m.encode(f), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), m.o.Snapshot); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(m.o.Snapshot)) // or a failure of power may bring the old one back
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (m *Monitor) encode(w io.Writer) error {
	buffered := bufio.NewWriter(w)
	zipped, err := gzip.NewWriterLevel(buffered, gzip.BestSpeed)
	if err != nil {
		return err
	}
	out := gob.NewEncoder(zipped)
	if err := out.Encode(snapshotVersion); err != nil {
		return err
	}
	for _, one := range m.store.all() {
		if err := out.Encode(one); err != nil {
			return fmt.Errorf("write a series: %w", err)
		}
	}
	return errors.Join(zipped.Close(), buffered.Flush())
}

// all is a view of every series.
func (s *store) all() []storedSeries {
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
func (m *Monitor) restore() {
	if m.o.Snapshot == "" {
		return
	}
	if err := m.restoreSnapshot(); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.o.Log.Warn("the history of the monitor cannot be read; it begins anew", "file", m.o.Snapshot, "error", err)
	}
	oldest := timestamp.FromTime(m.o.Now()) - m.o.Retention.Milliseconds()
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	err := readRecent(m.recent.path, func(l labels.Labels, at int64, value float64) {
		m.unsaved = true
		if at < oldest {
			return
		}
		if one := m.store.find(l); one != nil {
			_ = m.store.write(one, at, value) // in memory
		}
	})
	if err != nil {
		m.o.Log.Warn("the recent history of the monitor cannot be read to its end", "file", m.recent.path, "error", err)
	}
	m.store.logged = true
}

func (m *Monitor) restoreSnapshot() error {
	f, err := os.Open(m.o.Snapshot)
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
	fresh := newStore(m.o.MaxSeries)
	oldest := timestamp.FromTime(m.o.Now()) - m.o.Retention.Milliseconds()
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
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	m.store.series, m.store.byName, m.store.count = fresh.series, fresh.byName, fresh.count
	return nil
}

// put adds a series as it was stored, after each sample was read once. The last
// chunk is closed: what comes now begins another.
func (s *store) put(stored storedSeries, oldest int64) error {
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
