package audit

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"headway/internal/disk"
)

// Checkpoint is the end of a trail at a time. Kept elsewhere, it reveals a
// later truncation or rewrite.
type Checkpoint struct {
	Node      string    `json:"node"`
	Seq       uint64    `json:"seq"`
	Hash      string    `json:"hash"`                // of the record Seq, hex
	Time      time.Time `json:"time"`                // UTC, ms
	Signature []byte    `json:"signature,omitempty"` // Ed25519, over Signed
}

// Signed is the signed content: five lines of plain text.
func (c Checkpoint) Signed() []byte {
	return fmt.Appendf(nil, "headway audit checkpoint v1\n%s\n%d\n%s\n%s\n", strconv.Quote(c.Node), c.Seq, c.Hash, c.Time.UTC().Format(TimeFormat))
}

// Suffixes of the files beside a trail.
const (
	checkpointSuffix = ".checkpoint"
	tornSuffix       = ".torn"
)

// ErrSignature reports a checkpoint that the key did not sign.
var ErrSignature = errors.New("the checkpoint was not signed with this key")

// Check returns ErrSignature unless the owner of key signed c.
func (c Checkpoint) Check(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, c.Signed(), c.Signature) {
		return ErrSignature
	}
	return nil
}

// CheckpointPath is the file beside a trail that holds its newest checkpoint.
func CheckpointPath(path string) string { return path + checkpointSuffix }

// sidePath is the fallback for a file beside the trail whose directory is not
// writable. The name is unique per directory.
func sidePath(dir, path, suffix string) string {
	return filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", "-")+suffix)
}

// keep writes a file beside the trail, else into SideDir.
func (o *Options) keep(suffix string, text []byte) (file string, err error) {
	file = o.Path + suffix
	if err = disk.Replace(file, text, fileMode); err == nil || o.SideDir == "" {
		return file, err
	}
	file = sidePath(o.SideDir, o.Path, suffix)
	if other := disk.Replace(file, text, fileMode); other != nil {
		return "", errors.Join(err, other)
	}
	return file, nil
}

// NewestCheckpoint reads the checkpoint beside the trail, or in one of the
// SideDirs. The error wraps fs.ErrNotExist if there is none.
func NewestCheckpoint(path string, sideDirs ...string) (Checkpoint, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Checkpoint{}, err
	}
	newest, none := ReadCheckpoint(CheckpointPath(path))
	if none != nil && !errors.Is(none, fs.ErrNotExist) {
		return newest, none
	}
	for _, dir := range sideDirs {
		c, err := ReadCheckpoint(sidePath(dir, path, checkpointSuffix))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission): // of another user's service
		case err != nil:
			return newest, err
		case none != nil || c.Seq > newest.Seq:
			newest, none = c, nil
		}
	}
	return newest, none
}

// ReadCheckpoint reads the checkpoint beside a trail, or a checkpoint file
// named directly. The error wraps fs.ErrNotExist if there is none.
func ReadCheckpoint(file string) (Checkpoint, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("read the checkpoint: %w", err)
	}
	c, ok := parseCheckpoint(text)
	if !ok {
		return Checkpoint{}, fmt.Errorf("read the checkpoint: %s is none", file)
	}
	return c, nil
}

func (c Checkpoint) line() ([]byte, error) {
	text, err := json.Marshal(c)
	return append(EscapeHidden(text), '\n'), err
}

func parseCheckpoint(text []byte) (c Checkpoint, ok bool) {
	err := json.Unmarshal(text, &c) //nolint:forbidigo // our own file
	c.Time = wholeMilliseconds(c.Time)
	return c, err == nil && len(c.Hash) == HashLen
}

// checkpoint publishes the end of the trail if it has moved.
func (w *writer) checkpoint() {
	w.nextCheckpoint = w.o.Now().Add(w.o.CheckpointEvery)
	if w.trail.head.seq == w.checkpointed {
		return
	}
	c := Checkpoint{Node: w.o.Node, Seq: w.trail.head.seq, Hash: w.trail.head.hash, Time: wholeMilliseconds(w.o.Now())}
	if w.o.SigningKey != nil {
		c.Signature = ed25519.Sign(w.o.SigningKey, c.Signed())
	}
	attrs := []slog.Attr{
		slog.String("node", c.Node), slog.Uint64("seq", c.Seq), slog.String("hash", c.Hash),
		slog.String("at", c.Time.Format(TimeFormat)), // time is the line's own
	}
	if c.Signature != nil {
		attrs = append(attrs, slog.String("signature", base64.StdEncoding.EncodeToString(c.Signature)))
	}
	w.o.Log.LogAttrs(context.Background(), slog.LevelInfo, "audit checkpoint", attrs...)
	w.newest.Store(&c)
	line, err := c.line()
	if err == nil {
		_, err = w.o.keep(checkpointSuffix, line)
	}
	if err != nil {
		w.o.Log.Warn("the checkpoint of the audit trail could not be kept in a file", "error", err)
	}
	w.checkpointed = c.Seq
}
