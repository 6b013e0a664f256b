package prefix

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Blocks are of smallBlock bytes within the first smallUntil, where prompts differ
// that share a short system prompt, and of largeBlock behind that, as the blocks
// that engines cache: 512 tokens of 4 bytes. Only whole blocks count.
const (
	smallBlock = 256
	smallUntil = 4096
	largeBlock = 2048
)

// MaxHashes is how many blocks of a prompt have hashes: those of about two million
// tokens.
const MaxHashes = 4096

// Chain makes the hashes of the blocks of a prompt: each is XXH64 of a block, with
// the hash before it as the seed, so that equal hashes mean equal text up to the
// end of the block. They are the same everywhere, and not secret: who knows a text
// can find it. Keys makes them safe to keep.
//
// The zero value is an empty prompt. It is reused after Reset.
type Chain struct {
	Hashes []uint64

	digest xxhash.Digest
	last   uint64
	bytes  int64
	have   int              // bytes of a block that is not whole
	block  [largeBlock]byte // that has them
}

// Reset begins another prompt, whose hashes are appended to these.
func (c *Chain) Reset(hashes []uint64) {
	clear(c.block[:min(c.bytes, largeBlock)]) // no text is kept
	c.Hashes, c.last, c.bytes, c.have = hashes, 0, 0, 0
}

// Bytes is how long the prompt is.
func (c *Chain) Bytes() int64 { return c.bytes }

// Write adds text. It never fails.
func (c *Chain) Write(text []byte) (int, error) {
	n := len(text)
	for len(text) > 0 && len(c.Hashes) < MaxHashes {
		size := largeBlock
		if c.bytes < smallUntil {
			size = smallBlock
		}
		part := text[:min(len(text), size-c.have)]
		text = text[len(part):]
		c.bytes += int64(len(part))
		switch {
		case len(part) == size:
			c.add(part)
		case c.have+copy(c.block[c.have:], part) == size:
			c.add(c.block[:size])
			c.have = 0
		default:
			c.have += len(part)
		}
	}
	c.bytes += int64(len(text))
	return n, nil
}

// add adds a whole block.
func (c *Chain) add(block []byte) {
	c.digest.ResetWithSeed(c.last)
	_, _ = c.digest.Write(block)
	c.last = c.digest.Sum64()
	c.Hashes = append(c.Hashes, c.last)
}

// Covered is how many bytes of a prompt its first blocks have.
func Covered(blocks int) int64 {
	if small := smallUntil / smallBlock; blocks > small {
		return smallUntil + int64(blocks-small)*largeBlock
	}
	return int64(blocks) * smallBlock
}

// Scope is a hash of what prompts must have in common to share something in a head's
// cache beside their model: the tenant, by its kind and its id, the adapter, and the salt
// of the cache. It is 0 if all are empty.
func Scope(kind, id, adapter, salt string) uint64 {
	if kind == "" && id == "" && adapter == "" && salt == "" {
		return 0
	}
	var d xxhash.Digest
	d.Reset()
	for _, text := range [...]string{kind, id, adapter, salt} {
		var length [8]byte
		binary.LittleEndian.PutUint64(length[:], uint64(len(text)))
		_, _ = d.Write(length[:])
		_, _ = d.WriteString(text)
	}
	return max(d.Sum64(), 1)
}

// Keys makes of the hashes of a prompt those that are kept: with a secret, so that no
// text can be found by them, and for one scope, so that what is not shared in a
// head's cache has no hash in common. It is safe for concurrent use.
type Keys struct {
	secret cipher.Block
}

// NewKeys makes keys of a secret of 16 bytes.
func NewKeys(secret [16]byte) *Keys {
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	return &Keys{block}
}

// Scratch is memory that Apply needs, so that it allocates none.
type Scratch [aes.BlockSize]byte

// Apply replaces the hashes by their keys in a scope.
func (k *Keys) Apply(hashes []uint64, scope uint64, block *Scratch) {
	for i, h := range hashes {
		binary.LittleEndian.PutUint64(block[:8], h)
		binary.LittleEndian.PutUint64(block[8:], scope)
		k.secret.Encrypt(block[:], block[:])
		hashes[i] = binary.LittleEndian.Uint64(block[:8])
	}
}
