package boltstore_test

import (
	"bytes"
	"encoding/binary"
	"testing"
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
