package history

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"os"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// recent is the log of what was written since the last snapshot. After a kill
// the snapshot and this log are the history, so that what is lost is what no
// step has written yet; after a failure of power, what was not synced, too.
//
// The file begins with recentMagic. A frame of each step follows: the length
// and the CRC-32C of its payload, four bytes each, and the payload: the time,
// the series that are new to the file, and the samples. A frame that was torn
// ends the file.
type recent struct {
	path   string
	file   *os.File
	size   int64
	known  map[*Series]int // the number of each series in the file
	values []uint64        // the last value of each, as bits
	synced time.Time
}

const (
	recentMagic = "headway-recent 1\n"
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
	n, err := r.file.Write(r.frame(samples))
	if r.size += int64(n); err == nil && now.Sub(r.synced) >= syncEvery {
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

// frame packs samples of one time. A value is the difference of its bits to
// those of before, which is short where a value stays.
func (r *recent) frame(samples []written) []byte {
	b := make([]byte, frameHeader, frameHeader+16+4*len(samples))
	b = binary.AppendVarint(b, samples[0].at)
	first := len(r.values)
	for _, s := range samples {
		if _, ok := r.known[s.series]; !ok {
			r.known[s.series] = len(r.values)
			r.values = append(r.values, 0)
		}
	}
	fresh := make([]*Series, len(r.values)-first)
	for _, s := range samples {
		if id := r.known[s.series]; id >= first {
			fresh[id-first] = s.series
		}
	}
	b = binary.AppendUvarint(b, uint64(len(fresh)))
	for _, one := range fresh {
		b = binary.AppendUvarint(b, uint64(one.labels.Len()))
		one.labels.Range(func(l labels.Label) { b = appendText(appendText(b, l.Name), l.Value) })
	}
	before := 0
	for _, s := range samples {
		id, value := r.known[s.series], math.Float64bits(s.value)
		b = binary.AppendVarint(b, int64(id-before))
		b = binary.AppendUvarint(b, bits.ReverseBytes64(value^r.values[id]))
		before, r.values[id] = id, value
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)-frameHeader))
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[frameHeader:], castagnoli))
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
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
	values []uint64
	b      []byte
	err    error
}

var errShort = errors.New("it is too short")

func (d *decoder) frame(payload []byte) error {
	d.b, d.err = payload, nil
	at := d.varint()
	for range d.count() {
		builder := labels.NewScratchBuilder(8)
		for range d.count() {
			name := d.text()
			builder.Add(name, d.text())
		}
		builder.Sort()
		d.series, d.values = append(d.series, builder.Labels()), append(d.values, 0)
	}
	id := int64(0)
	for len(d.b) > 0 && d.err == nil {
		id += d.varint()
		value := bits.ReverseBytes64(d.uvarint())
		if id < 0 || id >= int64(len(d.series)) {
			return errors.New("a series is not known")
		}
		d.values[id] ^= value
		if d.err == nil {
			d.each(d.series[id], at, math.Float64frombits(d.values[id]))
		}
	}
	return d.err
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	d.skip(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.skip(n)
	return v
}

func (d *decoder) skip(n int) {
	if n <= 0 || n > len(d.b) {
		d.b, d.err = nil, errShort
		return
	}
	d.b = d.b[n:]
}

// count reads the number of parts that follow, each of which takes a byte at
// least.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.err = nil, errShort
		return 0
	}
	return int(n)
}

func (d *decoder) text() string {
	n := d.count()
	text := string(d.b[:n])
	d.b = d.b[n:]
	return text
}
