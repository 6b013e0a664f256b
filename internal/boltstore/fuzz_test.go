package boltstore_test

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"headway/internal/boltstore"
)

// FuzzPages changes bytes of a sound file: it is refused with a sentence, or
// serves what was written. Each four bytes of the input are a place, and what is
// put there. The fuzzer finds pages that no flip of single bits makes.
func FuzzPages(f *testing.F) {
	sound := newDamagedFile(f)
	patch := func(at uint32, value byte) []byte { return binary.BigEndian.AppendUint32(nil, at<<8|uint32(value)) }
	f.Add([]byte{})
	for _, at := range []uint32{8, 10, 12, 16, 24, 40, 48, 56, 64, 72} { // of the pages' heads and the metas
		f.Add(patch(at, 0xff))
		f.Add(append(patch(at, 1), patch(pageSize+at, 2)...))
		f.Add(patch(2*pageSize+at, 0x7f))
	}
	f.Fuzz(func(t *testing.T, patches []byte) {
		damaged := bytes.Clone(sound.sound)
		for ; len(patches) >= 4; patches = patches[4:] {
			p := binary.BigEndian.Uint32(patches)
			damaged[int(p>>8)%len(damaged)] = byte(p)
		}
		one := *sound
		one.dir, one.tries = t.TempDir(), 0
		one.try(t, "patched", damaged)
	})
}

// FuzzSealedPages changes bytes of a sound file, the metas among them, and makes
// the checksums of the metas fit: a file that was made to harm. In any
// case it is refused with a sentence, or opens, is read and closed.
func FuzzSealedPages(f *testing.F) {
	sound := newDamagedFile(f).sound
	patch := func(pairs ...uint32) (p []byte) {
		for i := 0; i < len(pairs); i += 2 {
			p = binary.BigEndian.AppendUint32(p, pairs[i]<<8|pairs[i+1])
		}
		return p
	}
	f.Add([]byte{})
	for at := uint32(24); at < 72; at += 4 { // size of a page, root, free list, pages, commit
		f.Add(patch(at, 0xff, pageSize+at, 0xff))
		f.Add(patch(at+3, 0x7f, pageSize+at+3, 0x7f))
		f.Add(patch(at, 0, pageSize+at, 0))
	}
	f.Fuzz(func(t *testing.T, patches []byte) {
		damaged := bytes.Clone(sound)
		for ; len(patches) >= 4; patches = patches[4:] {
			p := binary.BigEndian.Uint32(patches)
			damaged[int(p>>8)%len(damaged)] = byte(p)
		}
		for _, meta := range [][]byte{damaged[16:], damaged[pageSize+16:]} {
			h := fnv.New64a()
			_, _ = h.Write(meta[:56])
			binary.NativeEndian.PutUint64(meta[56:], h.Sum64())
		}
		path := filepath.Join(t.TempDir(), "made")
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := boltstore.Check(path); err != nil {
			t.Errorf("check: %v", err)
		}
		s, err := boltstore.Open(path, boltstore.Options{})
		if err != nil {
			if msg := err.Error(); !strings.Contains(msg, "headway state") || strings.Contains(msg, "goroutine") {
				t.Errorf("the refusal is no sentence that helps: %v", err)
			}
			return
		}
		_, _, _ = contents(s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
