package strategy

import "math/bits"

// Rand is a small, fast random source (wyrand) of one decision. Its value is the
// seed.
type Rand struct{ state uint64 }

// Uint64 returns 64 random bits.
func (r *Rand) Uint64() uint64 {
	r.state += 0xa0761d6478bd642f
	hi, lo := bits.Mul64(r.state, r.state^0xe7037ed1a0b428db)
	return hi ^ lo
}

// IntN returns a number from 0 to n-1; n is at least 1. Its bias is below
// n/2^64 (Lemire's multiplication without rejection).
func (r *Rand) IntN(n int) int {
	hi, _ := bits.Mul64(r.Uint64(), uint64(n))
	return int(hi)
}

// Float64 returns a number in [0, 1).
func (r *Rand) Float64() float64 { return float64(r.Uint64()>>11) / (1 << 53) }

// Mix hashes two words into one (the finalizer of MurmurHash3 over their
// combination); equal on every machine.
func Mix(a, b uint64) uint64 {
	x := a ^ bits.RotateLeft64(b, 32) ^ b*0x9e3779b97f4a7c15
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
