package redisaudit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Bounds of one command, checked before anything is buffered.
const (
	maxArguments = 64
	maxArgument  = 1 << 10
	maxCommand   = 8 << 10 // all arguments together
	maxInline    = 1 << 10 // the line of an inline command
)

func protocolError(text string) error { return &endingError{reasonProtocol, "Protocol error: " + text} }

type command struct {
	args   []string // at least one
	inline bool     // typed as a line, not framed
}

// readCommand reads one command. It buffers at most maxCommand bytes, and skips
// a bounded number of bytes between commands. It is our own, since redcon
// buffers a command of any length until it is whole, turns a typed line into a
// framed command, by which HTTP is no longer known, and has no RESP3:
// TestHostileBytes and TestCommonClients hold what it lacks.
func readCommand(r *bufio.Reader) (command, error) {
	for range maxArguments {
		first, err := r.Peek(1)
		if err != nil {
			return command{}, err
		}
		if first[0] == '*' {
			args, err := readFramed(r)
			return command{args: args}, err
		}
		line, err := readLine(r)
		if err != nil {
			return command{}, err
		}
		args := strings.Fields(line)
		if len(args) == 0 {
			continue // an empty line is no command
		}
		if strings.HasPrefix(args[len(args)-1], "HTTP/") || strings.HasSuffix(args[0], ":") {
			return command{}, errHTTP // a page of another site can have a browser send it, with commands as its body
		}
		if len(args) > maxArguments {
			return command{}, protocolError("too many arguments")
		}
		return command{args: args, inline: true}, nil
	}
	return command{}, protocolError("too many empty lines")
}

func readFramed(r *bufio.Reader) ([]string, error) {
	const invalid = "invalid multibulk length"
	count, err := readLength(r, '*', maxArguments, invalid)
	if err == nil && count == 0 {
		err = protocolError(invalid)
	}
	if err != nil {
		return nil, err
	}
	args := make([]string, 0, count)
	left := maxCommand
	for range count {
		size, err := readLength(r, '$', min(maxArgument, left), "invalid bulk length")
		if err != nil {
			return nil, err
		}
		left -= size
		arg := make([]byte, size+2)
		if _, err := io.ReadFull(r, arg); err != nil {
			return nil, err
		}
		if string(arg[size:]) != "\r\n" {
			return nil, protocolError("a string does not end where it should")
		}
		args = append(args, string(arg[:size]))
	}
	return args, nil
}

func readLength(r *bufio.Reader, kind byte, most int, invalid string) (int, error) {
	line, err := readLine(r)
	if err != nil {
		return 0, err
	}
	if line == "" || line[0] != kind {
		return 0, protocolError("expected '" + string(kind) + "'")
	}
	n, err := strconv.ParseUint(line[1:], 10, 31)
	if err != nil || int(n) > most {
		return 0, protocolError(invalid)
	}
	return int(n), nil
}

// readLine reads a line without its end, bounded by the reader's buffer.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxInline {
		return "", protocolError("too big inline request")
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(line[:len(line)-1]), "\r"), nil
}

// Values of an answer, besides string (sent with its length), int and nil.
type (
	status   string
	fault    string
	verbatim string // a text to be shown; in RESP2 a string
	array    []any
	pairs    []any // keys and values in turn: a map, in RESP2 an array
	push     []any // what was not asked for; in RESP2 an array
	several  []any // answers, one after the other
)

func appendValue(b []byte, resp3 bool, value any) []byte {
	list := func(kind, kind2 byte, n int, values []any) []byte {
		if !resp3 {
			kind, n = kind2, len(values)
		}
		if kind != 0 {
			b = fmt.Appendf(b, "%c%d\r\n", kind, n)
		}
		for _, v := range values {
			b = appendValue(b, resp3, v)
		}
		return b
	}
	switch v := value.(type) {
	case string:
		return fmt.Appendf(b, "$%d\r\n%s\r\n", len(v), v)
	case int:
		return fmt.Appendf(b, ":%d\r\n", v)
	case status:
		return fmt.Appendf(b, "+%s\r\n", string(v))
	case fault:
		return fmt.Appendf(b, "-%s\r\n", string(v))
	case verbatim:
		if resp3 {
			return fmt.Appendf(b, "=%d\r\ntxt:%s\r\n", len("txt:")+len(v), string(v))
		}
		return appendValue(b, resp3, string(v))
	case array:
		return list('*', '*', len(v), v)
	case pairs:
		return list('%', '*', len(v)/2, v)
	case push:
		return list('>', '*', len(v), v)
	case several:
		return list(0, 0, 0, v)
	}
	if resp3 {
		return append(b, "_\r\n"...)
	}
	return append(b, "$-1\r\n"...)
}

// printable makes client input safe for an answer and a log.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), 32)])
}

// element matches one element of a Redis pattern for strict.Match: ? [a-z] [^a]
// or \.
func element(pattern string, c byte) (ok bool, size int) {
	switch {
	case pattern[0] == '?':
		return true, 1
	case pattern[0] == '\\' && len(pattern) > 1:
		return pattern[1] == c, 2
	case pattern[0] != '[':
		return pattern[0] == c, 1
	}
	i := 1
	not := i < len(pattern) && pattern[i] == '^'
	if not {
		i++
	}
	for ; i < len(pattern) && pattern[i] != ']'; i++ {
		if pattern[i] == '\\' && i+1 < len(pattern) {
			i++
			ok = ok || pattern[i] == c
			continue
		}
		low, high := pattern[i], pattern[i]
		if i+2 < len(pattern) && pattern[i+1] == '-' {
			high = pattern[i+2]
			i += 2
		}
		ok = ok || min(low, high) <= c && c <= max(low, high)
	}
	return ok != not, min(i+1, len(pattern))
}
