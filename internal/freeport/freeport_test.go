package freeport

import (
	"net"
	"strconv"
	"testing"
)

func TestPortsAreGivenOnce(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		first := Range(t, 3)
		for port := first; port < first+3; port++ {
			if port < lowest || port >= lowest+number || seen[port] {
				t.Fatalf("%d is given twice, or out of bounds", port)
			}
			seen[port] = true
		}
	}
}

// Of four ports in a row the first and the third are listened at: there are no
// two that follow each other. When the second was given, the fourth is left, and
// then none.
func TestPortsInUseAreLeftOut(t *testing.T) {
	first := Range(t, 4)
	for _, port := range []int{first, first + 2} {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	give := func(second bool) {
		mu.Lock()
		defer mu.Unlock()
		for port := first; port < first+4; port++ {
			given[port] = second && port == first+1
		}
	}
	give(false)
	if got, err := find(first, 4, 2); err == nil {
		t.Errorf("two from %d were found where no two are free", got)
	}
	give(true)
	if got, err := find(first, 4, 1); got != first+3 || err != nil {
		t.Errorf("%d, %v; want %d", got, err, first+3)
	}
	if got, err := find(first, 4, 1); err == nil {
		t.Errorf("%d was found where none is left", got)
	}
}
