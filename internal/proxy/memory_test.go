package proxy

import "testing"

func TestBuffersHaveLittleUnused(t *testing.T) {
	for n := 1; n <= 64<<20; n += 1 + n/100 {
		size, pool := sizeFor(n)
		if pool < 0 || size < n || n > 1<<10 && size-n > n/16 {
			t.Fatalf("%d bytes: %d in pool %d", n, size, pool)
		}
		if again, same := sizeFor(size); again != size || same != pool {
			t.Fatalf("a buffer of %d goes to %d in pool %d, and came from %d", size, again, same, pool)
		}
	}
	if size, pool := sizeFor(64<<20 + 1); pool >= 0 || size != 64<<20+1 {
		t.Errorf("64 MiB and a byte: %d in pool %d", size, pool)
	}
	b := newMemory(100_000)
	if len(*b) != 0 || cap(*b) < 100_000 {
		t.Errorf("%d of %d", len(*b), cap(*b))
	}
	freeMemory(b)
}
