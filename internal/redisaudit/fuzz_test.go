package redisaudit_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"headway/internal/redisaudit"
)

func addrPort(address string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(address), 1)
}

// parseReply takes one value of RESP2 or RESP3 from the beginning.
func parseReply(b []byte, depth int) (rest []byte, err error) {
	line, rest, found := bytes.Cut(b, []byte("\r\n"))
	if !found || len(line) == 0 || depth > 4 {
		return nil, fmt.Errorf("no line in %.40q", b)
	}
	kind, text := line[0], string(line[1:])
	if kind == '+' || kind == '-' {
		if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, fmt.Errorf("text %q", text)
		}
		return rest, nil
	}
	if kind == '_' {
		return rest, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("number in %q", line)
	}
	switch kind {
	case ':':
		return rest, nil
	case '$', '=':
		if n == -1 && kind == '$' {
			return rest, nil
		}
		if n < 0 || len(rest) < n+2 || string(rest[n:n+2]) != "\r\n" {
			return nil, fmt.Errorf("string of %d in %.40q", n, rest)
		}
		return rest[n+2:], nil
	case '%':
		n *= 2
	case '*', '>':
	default:
		return nil, errors.New("type of " + string(line))
	}
	for range n {
		if rest, err = parseReply(rest, depth+1); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// FuzzConnection gives foreign bytes to a connection. It ends with the bytes,
// every answer is of the protocol, and memory stays within a bound.
func FuzzConnection(f *testing.F) {
	for _, h := range hostile {
		f.Add([]byte(h.bytes))
	}
	for _, name := range []string{
		"HELLO 3 AUTH default x SETNAME a", "HELLO 2", "HELLO", "CLIENT ID", "CLIENT INFO", "CLIENT GETNAME", "CLIENT SETNAME x",
		"CLIENT SETINFO LIB-NAME x", "AUTH default x", "AUTH x", "COMMAND", "COMMAND DOCS", "COMMAND INFO ping x", "COMMAND COUNT", "COMMAND LIST",
		"CONFIG GET *", "CLUSTER INFO", "INFO", "INFO server clients", "PUBSUB CHANNELS a*", "PUBSUB NUMSUB a b", "PUBSUB NUMPAT", "ROLE", "SELECT 0", "SELECT 1",
		"ECHO a", "PING", "PING a", "PUBLISH a b", "RESET", "QUIT", "UNSUBSCRIBE", "PUNSUBSCRIBE a", subscribeLine, "PSUBSCRIBE a* [b]* \\*",
	} {
		f.Add([]byte(name + "\r\n"))
		f.Add([]byte("HELLO 3\r\n" + subscribeLine + "\r\n" + name + "\r\n"))
		f.Add([]byte(subscribeLine + "\r\n" + name + "\r\nPING\r\n"))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		e := redisaudit.NewEmbedded(options(newEnds()))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c := record(bytes.NewReader(in))
		e.Admit(c)
		<-c.closed
		e.EndAll()
		runtime.ReadMemStats(&after)
		// The longest answer to a byte is that to COMMAND.
		if took, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+2048*len(in)); took > most {
			t.Errorf("%d bytes took %d bytes of memory, at most %d", len(in), took, most)
		}
		for rest := c.out.Bytes(); len(rest) > 0; {
			var err error
			if rest, err = parseReply(rest, 0); err != nil {
				t.Fatalf("%q was answered with %q: %v", in, c.out.Bytes(), err)
			}
		}
	})
}

// FuzzMatches takes no longer than the product of the lengths, and agrees with
// the plain definition.
func FuzzMatches(f *testing.F) {
	f.Add("audit:*", redisaudit.Channel)
	f.Add("[a-c]?\\*[^x]*", "bz*yy")
	f.Add("[", "a")
	f.Add("[a-", "a")
	f.Add("\\", "\\")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		redisaudit.Matches(strings.Repeat(pattern+"*", 20), strings.Repeat(name, 20))
		if got := redisaudit.Matches("*"+pattern, name); !got && redisaudit.Matches(pattern, name) {
			t.Errorf("%q does not match %q with a star before it, and does without", pattern, name)
		}
		if !redisaudit.Matches(strings.NewReplacer("\\", "\\\\", "*", "\\*", "?", "\\?", "[", "\\[").Replace(name), name) {
			t.Errorf("%q does not match itself", name)
		}
	})
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true},
		{"*", "abc", true},
		{"", "", true},
		{"", "a", false},
		{"audit:*", redisaudit.Channel, true},
		{"audit:*:logs", redisaudit.Channel, true},
		{"audit:*:log", redisaudit.Channel, false},
		{"*:*:*", "a:b:c", true},
		{"*:*:*:*", "a:b:c", false},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"[ab]c", "bc", true},
		{"[ab]c", "cc", false},
		{"[^ab]c", "cc", true},
		{"[^ab]c", "ac", false},
		{"[a-c]", "b", true},
		{"[c-a]", "b", true},
		{"[a-c]", "d", false},
		{"[\\]]", "]", true},
		{"[a", "a", true},
		{"[a-]", "-", false},
		{"\\*", "*", true},
		{"\\*", "a", false},
		{"a\\", "a\\", true},
		{"a*\\*", "ab*", true},
		{"a**b", "ab", true},
		{strings.Repeat("*a", 100) + "b", strings.Repeat("a", 10_000), false},
	} {
		if got := redisaudit.Matches(c.pattern, c.name); got != c.want {
			t.Errorf("%.40q and %.40q: %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}
