package boltstore

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	bolt "go.etcd.io/bbolt"

	"headway/internal/access"
	"headway/internal/disk"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/policy"
)

// Report is what Check found.
type Report struct {
	Buckets []BucketReport
	Faults  []string // empty: the file is sound
}

// BucketReport counts one kind of record.
type BucketReport struct {
	Name    string
	Records int
}

// maxFaults bounds a report.
const maxFaults = 100

// Check reads every page and every record of a file and changes nothing. The
// error is for a file that cannot be opened at all because of something else
// than damage.
func Check(path string) (Report, error) {
	report, _, err := inspect(path)
	return report, err
}

// The lines of an export: a header, then records, then a closing line.
type exportLine struct {
	Format     string         `json:"format,omitzero"`
	Version    int            `json:"version,omitzero"`
	Schema     int            `json:"schema,omitzero"`
	ExportedAt time.Time      `json:"exported_at,omitzero"`
	Head       *fleet.Record  `json:"head,omitzero"`
	Policy     *policy.Stored `json:"policy,omitzero"`
	Key        *access.Key    `json:"key,omitzero"`    // with the hash of its secret
	Epochs     uint64         `json:"epochs,omitzero"` // granted so far
	End        *exportEnd     `json:"end,omitzero"`
}

type exportEnd struct {
	Heads    int    `json:"heads"`
	Policies int    `json:"policies"`
	Keys     int    `json:"keys,omitzero"`
	SHA256   string `json:"sha256"` // of all lines before
}

const (
	exportFormat  = "headway-state"
	exportVersion = 1
	maxLine       = 4 << 20
)

// maxNumber bounds what is counted up from an import, so that no count starts
// over: 2^62, more than a store that counts a million times a second reaches.
const maxNumber = 1 << 62

// wrong says what is wrong with a line after the first, or "".
func (l exportLine) wrong() string {
	kinds := 0
	for _, is := range []bool{l.Head != nil, l.Policy != nil, l.Key != nil, l.End != nil} {
		if is {
			kinds++
		}
	}
	switch {
	case kinds != 1 || l.Format != "" || l.Version != 0 || l.Schema != 0 || l.Epochs != 0 || !l.ExportedAt.IsZero():
		return "it is not one head, one policy, one key or the end"
	case l.Head != nil && (l.Head.Spec.ID == "" || len(l.Head.Spec.ID) > fleet.MaxIDLength):
		return "a head's id has 1 to " + strconv.Itoa(fleet.MaxIDLength) + " characters"
	case l.Head != nil && l.Head.Admin.State > fleet.AdminMaintenance:
		return fmt.Sprintf("admin state %d is unknown", l.Head.Admin.State)
	case l.Key != nil && (l.Key.ID == "" || len(l.Key.ID) > fleet.MaxIDLength || len(l.Key.Hash) != sha256.Size):
		return "a key has an id and the SHA-256 of its secret"
	case l.Policy != nil && (l.Policy.Revision == 0 || l.Policy.Revision > maxNumber):
		return fmt.Sprintf("no policy has revision %d", l.Policy.Revision)
	}
	return ""
}

// exporter writes lines and hashes them.
type exporter struct {
	w    *bufio.Writer
	hash hash.Hash
	end  exportEnd
}

func (e *exporter) line(l exportLine) error {
	b, err := json.Marshal(l, json.Deterministic(true))
	if err != nil {
		return err
	}
	b = append(b, '\n')
	_, _ = e.hash.Write(b)
	_, err = e.w.Write(b)
	return err
}

// Export writes the state of a file that no process has open as JSON lines.
func Export(ctx context.Context, path string, w io.Writer) (err error) {
	report, fresh, err := inspect(path)
	switch {
	case err != nil:
		return err
	case len(report.Faults) > 0:
		return fmt.Errorf("export %s: it is damaged: %s", path, report.Faults[0])
	case fresh:
		return fmt.Errorf("export %s: nothing was ever written to it", path)
	}
	db, err := openBolt(path, true)
	if err != nil {
		return err
	}
	s := &Store{db: db, path: path}
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.Export(ctx, w)
}

// Export writes the state as JSON lines while the service goes on: all of it is
// of one moment. It is read whole before the first byte is written, so that a
// slow reader keeps no transaction open, which would hold up commits.
func (s *Store) Export(ctx context.Context, w io.Writer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var c contents
	if err := s.guard(func() error { return s.db.View(c.read) }); err != nil {
		return fmt.Errorf("export %s: %w", s.path, err)
	}
	return c.write(w)
}

// Check reads every page and every record of the open file. Commits wait until
// it is done, so that no page changes meanwhile.
func (s *Store) Check(ctx context.Context) (report Report, err error) {
	if err := ctx.Err(); err != nil {
		return Report{}, err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	err = s.guard(func() error {
		tx, err := s.db.Begin(true)
		if err != nil {
			return fmt.Errorf("check %s: %w", s.path, err)
		}
		defer func() { _ = tx.Rollback() }() // nothing was changed
		if err := checkFile(s.path, int64(s.db.Info().PageSize)); err != nil {
			report.Faults = append(report.Faults, err.Error())
			return nil
		}
		report.Buckets, report.Faults = verify(tx)
		report.Faults = report.Faults[:min(len(report.Faults), maxFaults)]
		return nil
	})
	return report, err
}

// contents are what an export has.
type contents struct {
	epochs   uint64
	heads    []fleet.Record
	policies []policy.Stored // newest first
	keys     []access.Key
}

// read fills c with what a transaction sees, or refuses what is damaged.
func (c *contents) read(tx *bolt.Tx) (err error) {
	if _, faults := verify(tx); len(faults) > 0 {
		return fmt.Errorf("%w: %s", errDamaged, faults[0])
	}
	if c.epochs, err = getUint(tx, keyEpochs); err != nil {
		return err
	}
	if c.heads, err = read[fleet.Record](tx, bucketHeads); err != nil {
		return err
	}
	if c.policies, err = policiesOf(tx, keptPolicies); err != nil {
		return err
	}
	if tx.Bucket(bucketKeys) == nil { // of a layout without keys
		return nil
	}
	c.keys, err = read[access.Key](tx, bucketKeys)
	return err
}

func (c *contents) write(w io.Writer) error {
	e := &exporter{w: bufio.NewWriter(w), hash: sha256.New()}
	if err := e.line(exportLine{Format: exportFormat, Version: exportVersion, Schema: schema, ExportedAt: time.Now().UTC().Truncate(time.Second), Epochs: c.epochs}); err != nil {
		return err
	}
	for i := range c.heads {
		if err := e.line(exportLine{Head: &c.heads[i]}); err != nil {
			return err
		}
	}
	for i := len(c.policies) - 1; i >= 0; i-- {
		if err := e.line(exportLine{Policy: &c.policies[i]}); err != nil {
			return err
		}
	}
	for i := range c.keys {
		if err := e.line(exportLine{Key: &c.keys[i]}); err != nil {
			return err
		}
	}
	e.end = exportEnd{Heads: len(c.heads), Policies: len(c.policies), Keys: len(c.keys), SHA256: hex.EncodeToString(e.hash.Sum(nil))}
	return errors.Join(e.line(exportLine{End: &e.end}), e.w.Flush())
}

// importBatch is how many records are written in one transaction.
const importBatch = 5000

// Import makes a new file from an export. It is all or nothing: the file
// appears, whole and verified, or not at all. An existing file is refused.
func Import(ctx context.Context, r io.Reader, path string) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists; move it away first", path)
	}
	temporary := path + ".import"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(temporary)))
		}
	}()
	s, err := Open(temporary, Options{})
	if err != nil {
		return err
	}
	if err := errors.Join(s.restore(ctx, r), s.Close()); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	// A link, unlike a rename, does not replace a file that came meanwhile.
	if err := os.Link(temporary, path); err != nil {
		return err
	}
	if err := os.Remove(temporary); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(path))
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// importer reads the lines of an export and checks that they are whole.
type importer struct {
	lines *bufio.Scanner
	hash  hash.Hash
	n     int
	heads []feed.Change[fleet.Record]
	end   exportEnd
}

func (s *Store) restore(ctx context.Context, r io.Reader) error {
	in := &importer{lines: bufio.NewScanner(r), hash: sha256.New()}
	in.lines.Buffer(nil, maxLine)
	if err := s.restoreHeader(ctx, in); err != nil {
		return err
	}
	for {
		l, sum, err := in.next()
		if err != nil {
			return err
		}
		if wrong := l.wrong(); wrong != "" {
			return fmt.Errorf("line %d: %s", in.n, wrong)
		}
		switch {
		case l.Head != nil:
			in.end.Heads++
			in.heads = append(in.heads, feed.Change[fleet.Record]{ID: l.Head.Spec.ID, Value: l.Head})
			if len(in.heads) == importBatch {
				if err := s.flush(ctx, in); err != nil {
					return err
				}
			}
		case l.Policy != nil:
			in.end.Policies++
			if err := s.restorePolicy(ctx, l.Policy); err != nil {
				return fmt.Errorf("line %d: %w", in.n, err)
			}
		case l.Key != nil:
			in.end.Keys++
			if err := s.SaveKeys(ctx, []feed.Change[access.Key]{{ID: l.Key.ID, Value: l.Key}}); err != nil {
				return fmt.Errorf("line %d: %w", in.n, err)
			}
		default:
			in.end.SHA256 = sum
			if *l.End != in.end {
				return fmt.Errorf("line %d: the export was changed or cut: it should have %d heads, %d policies, %d keys and checksum %.12s…, and has %d, %d, %d and %.12s…",
					in.n, l.End.Heads, l.End.Policies, l.End.Keys, l.End.SHA256, in.end.Heads, in.end.Policies, in.end.Keys, in.end.SHA256)
			}
			if in.lines.Scan() || in.lines.Err() != nil {
				return fmt.Errorf("line %d: something follows the end", in.n+1)
			}
			return s.flush(ctx, in)
		}
	}
}

func (s *Store) restoreHeader(ctx context.Context, in *importer) error {
	header, _, err := in.next()
	if err != nil {
		return err
	}
	switch {
	case header.Format != exportFormat || header.Version < 1:
		return errors.New("line 1: this is no export of headway's state")
	case header.Version > exportVersion || header.Schema > schema:
		return errors.New("line 1: the export was written by a newer headway: upgrade headway")
	case header.Epochs > maxNumber:
		return fmt.Errorf("line 1: no headway grants %d epochs", header.Epochs)
	case header.Epochs > 0:
		_, err = s.GrantEpochs(ctx, header.Epochs)
	}
	return err
}

// next reads a line; sum is the checksum of the lines before it.
func (in *importer) next() (l exportLine, sum string, err error) {
	in.n++
	if !in.lines.Scan() {
		if err := in.lines.Err(); err != nil {
			return l, "", fmt.Errorf("line %d: %w", in.n, err)
		}
		return l, "", fmt.Errorf("line %d: the export ends before its closing line: it was cut", in.n)
	}
	sum = hex.EncodeToString(in.hash.Sum(nil))
	_, _ = in.hash.Write(in.lines.Bytes())
	_, _ = in.hash.Write([]byte{'\n'})
	if err := json.Unmarshal(in.lines.Bytes(), &l, json.RejectUnknownMembers(true)); err != nil {
		where := ""
		if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
			where = " at " + string(semantic.JSONPointer)
		} else if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
			where = fmt.Sprintf(" at byte %d", syntactic.ByteOffset)
		}
		return l, "", fmt.Errorf("line %d: not as an export has it%s", in.n, where)
	}
	return l, sum, nil
}

func (s *Store) flush(ctx context.Context, in *importer) error {
	if len(in.heads) == 0 {
		return nil
	}
	err := s.Save(ctx, in.heads)
	in.heads = in.heads[:0]
	return err
}

// restorePolicy keeps the revision that the policy had.
func (s *Store) restorePolicy(ctx context.Context, p *policy.Stored) error {
	return s.update(ctx, opSave, func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketPolicies)
		total, err := getSums(tx, bucketPolicies)
		if err != nil {
			return err
		}
		key := policyKey(p.Revision)
		if last, _ := b.Cursor().Last(); last != nil && string(last) >= string(key) {
			return fmt.Errorf("policy revision %d is out of order", p.Revision)
		}
		if err := putAt(b, key, &total, p.Revision, p); err != nil {
			return err
		}
		return total.put(tx, bucketPolicies)
	}, func() {})
}

// ReadKeys reads the keys of a file that no process has open and changes
// nothing. Without a file there are none.
func ReadKeys(path string) (list []access.Key, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	db, err := openBolt(path, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, guard(db.Close)) }()
	return list, guard(func() error {
		return db.View(func(tx *bolt.Tx) error {
			if tx.Bucket(bucketKeys) != nil { // else it is new, or of before there were keys
				list, err = read[access.Key](tx, bucketKeys)
			}
			return err
		})
	})
}
