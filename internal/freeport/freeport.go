// Package freeport finds ports for test servers that cannot report the port
// they took.
package freeport

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// Systems assign ephemeral ports from 32,768 (Linux) or 49,152 on. A port of
// those may be taken between look and use.
const (
	lowest = 20_000
	number = 12_000
)

var (
	mu    sync.Mutex
	given = map[int]bool{} // by this process, to tests that have not ended
)

// Take returns a free port of 127.0.0.1. No other test of the process gets it
// before t has ended.
func Take(t testing.TB) int {
	t.Helper()
	return Range(t, 1)
}

// Address is 127.0.0.1 with a port of Take.
func Address(t testing.TB) string {
	t.Helper()
	return "127.0.0.1:" + strconv.Itoa(Take(t))
}

// Range is Take for n consecutive ports; it returns the first.
func Range(t testing.TB, n int) int {
	t.Helper()
	first, err := find(lowest, number, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for port := first; port < first+n; port++ {
			delete(given, port)
		}
	})
	return first
}

func find(lowest, count, n int) (first int, err error) {
	mu.Lock()
	defer mu.Unlock()
	for range 1000 {
		first := lowest + rand.IntN(count-n+1)
		if free(first, n) {
			for port := first; port < first+n; port++ {
				given[port] = true
			}
			return first, nil
		}
	}
	return 0, fmt.Errorf("no %d ports in a row are free from %d to %d", n, lowest, lowest+count-1)
}

func free(first, n int) bool {
	for port := first; port < first+n; port++ {
		if given[port] {
			return false
		}
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}
