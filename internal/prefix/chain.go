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

// Chain makes the hashes of the blocks of a prompt: each is XXH64 of a block, with
// the hash before it as the seed, so that equal hashes mean equal text up to the
// end of the block. They are the same everywhere, and not secret: who knows a text
// can find it. Keys makes them safe to keep.
//
// The zero value is an empty prompt. It is reused after Reset.
type Chain struct {
	Hashes []uint64

	block xxhash.Digest
	begun bool
	last  uint64
	left  int // bytes that are missing in the block
	bytes int64
}

// Reset begins another prompt.
func (c *Chain) Reset() { *c = Chain{Hashes: c.Hashes[:0]} }

// Bytes is how long the prompt is.
func (c *Chain) Bytes() int64 { return c.bytes }

// Write adds text. It never fails.
func (c *Chain) Write(text []byte) (int, error) {
	n := len(text)
	for len(text) > 0 {
		if !c.begun {
			c.begun = true
			c.block.ResetWithSeed(c.last)
			if c.left = largeBlock; c.bytes < smallUntil {
				c.left = smallBlock
			}
		}
		part := text[:min(len(text), c.left)]
		_, _ = c.block.Write(part)
		text = text[len(part):]
		c.bytes += int64(len(part))
		if c.left -= len(part); c.left == 0 {
			c.last, c.begun = c.block.Sum64(), false
			c.Hashes = append(c.Hashes, c.last)
		}
	}
	return n, nil
}

// Covered is how many bytes of a prompt its first blocks have.
func Covered(blocks int) int64 {
	if small := smallUntil / smallBlock; blocks > small {
		return smallUntil + int64(blocks-small)*largeBlock
	}
	return int64(blocks) * smallBlock
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
