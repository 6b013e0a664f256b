package history

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// recent is the log of what was written since the last snapshot. After a kill
// the snapshot and this log are the history, so that what is lost is what no
// step has written yet; after a failure of power, what was not synced, too.
//
// The file begins with recentMagic. A frame of each step follows: the length
// and the CRC-32C of its payload, four bytes each, and a step in gob. A frame
// that was torn ends the file. Prometheus' own log, tsdb/wlog, would link
// testify and net/http/httptest into the program.
type recent struct {
	path   string
	file   *os.File
	size   int64
	known  map[*Series]int // the number of each series in the file
	synced time.Time
}

const (
	recentMagic = "headway-recent 2\n"
	syncEvery   = 15 * time.Second
	maxRecent   = 64 << 20 // bytes of the file; a snapshot is taken then
	maxFrame    = 64 << 20
	frameHeader = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// written is a sample that the store took.
type written struct {
	series *Series
	at     int64
	value  float64
}

// step are samples of one time.
type step struct {
	At     int64
	Fresh  []map[string]string // the series that are new to the file; they are numbered in turn
	Series []int               // the number of each sample's
	Values []float64
}

// begin empties the file: a snapshot has what was in it.
func (r *recent) begin(now time.Time) error {
	_ = r.close()
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(recentMagic); err != nil {
		return errors.Join(err, f.Close())
	}
	*r = recent{path: r.path, file: f, size: int64(len(recentMagic)), known: map[*Series]int{}, synced: now}
	return nil
}

// write appends the samples of a step. After an error the file is no longer
// written, until it is begun again.
func (r *recent) write(samples []written, now time.Time) error {
	if r.file == nil || len(samples) == 0 {
		return nil
	}
	frame, err := r.frame(samples)
	if err == nil {
		_, err = r.file.Write(frame)
	}
	if r.size += int64(len(frame)); err == nil && now.Sub(r.synced) >= syncEvery {
		err, r.synced = r.file.Sync(), now
	}
	if err != nil {
		return errors.Join(err, r.close())
	}
	return nil
}

func (r *recent) begun() bool { return r.file != nil }

func (r *recent) close() error {
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file = nil
	return f.Close()
}

func (r *recent) frame(samples []written) ([]byte, error) {
	next := step{At: samples[0].at}
	for _, s := range samples {
		number, known := r.known[s.series]
		if !known {
			number = len(r.known)
			r.known[s.series] = number
			next.Fresh = append(next.Fresh, s.series.labels.Map())
		}
		next.Series, next.Values = append(next.Series, number), append(next.Values, s.value)
	}
	b := bytes.NewBuffer(make([]byte, frameHeader))
	if err := gob.NewEncoder(b).Encode(next); err != nil {
		return nil, fmt.Errorf("encode a step: %w", err)
	}
	frame := b.Bytes()
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-frameHeader))
	binary.LittleEndian.PutUint32(frame[4:], crc32.Checksum(frame[frameHeader:], castagnoli))
	return frame, nil
}

// readRecent reads a log up to its end or to what is damaged, and hands over
// each sample. A file that does not exist has none.
func readRecent(path string, each func(l labels.Labels, at int64, value float64)) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return decodeRecent(bufio.NewReader(f), each)
}

var errTorn = errors.New("a frame is damaged")

func decodeRecent(in io.Reader, each func(l labels.Labels, at int64, value float64)) error {
	magic := make([]byte, len(recentMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != recentMagic {
		return errors.New("it is no log of recent samples")
	}
	d := &decoder{each: each}
	var header [frameHeader]byte
	for {
		if n, _ := io.ReadFull(in, header[:]); n < len(header) {
			return nil // the end, or a torn one
		}
		length := binary.LittleEndian.Uint32(header[:])
		if length > maxFrame {
			return errTorn
		}
		payload := bytes.Buffer{} // grows with what is there, not with what the header says
		if n, _ := io.CopyN(&payload, in, int64(length)); n < int64(length) {
			return nil
		}
		if crc32.Checksum(payload.Bytes(), castagnoli) != binary.LittleEndian.Uint32(header[4:]) {
			return errTorn
		}
		if err := d.frame(payload.Bytes()); err != nil {
			return fmt.Errorf("a frame cannot be read: %w", err)
		}
	}
}

// decoder reads the payloads of frames.
type decoder struct {
	each   func(labels.Labels, int64, float64)
	series []labels.Labels
}

func (d *decoder) frame(payload []byte) error {
	var read step
	if err := gob.NewDecoder(bytes.NewReader(payload)).Decode(&read); err != nil {
		return err
	}
	for _, l := range read.Fresh {
		d.series = append(d.series, labels.FromMap(l))
	}
	if len(read.Series) != len(read.Values) {
		return errors.New("a value belongs to no series")
	}
	for i, number := range read.Series {
		if number < 0 || number >= len(d.series) {
			return errors.New("a series is not known")
		}
		d.each(d.series[number], read.At, read.Values[i])
	}
	return nil
}
