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

// protocolError is sent to the client, whose connection then ends.
type protocolError string

func (e protocolError) Error() string { return "Protocol error: " + string(e) }

type command struct {
	args   []string // at least one
	inline bool     // typed as a line, not framed
}

// readCommand reads one command. It buffers at most maxCommand bytes, and skips
// a bounded number of bytes between commands.
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
	count, err := readLength(r, '*', maxArguments, "invalid multibulk length")
	if err != nil {
		return nil, err
	}
	if count == 0 {
		return nil, protocolError("invalid multibulk length")
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

func readLength(r *bufio.Reader, kind byte, most int, fault protocolError) (int, error) {
	line, err := readLine(r)
	if err != nil {
		return 0, err
	}
	if line == "" || line[0] != kind {
		return 0, protocolError(fmt.Sprintf("expected '%c'", kind))
	}
	n, err := strconv.ParseUint(line[1:], 10, 31)
	if err != nil || int(n) > most {
		return 0, fault
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

// reply encodes an answer. RESP3 has types for maps, null and push messages;
// RESP2 uses arrays.
type reply struct {
	bytes []byte
	resp3 bool
}

func (r *reply) line(kind byte, text string) {
	r.bytes = append(r.bytes, kind)
	r.bytes = append(r.bytes, text...)
	r.bytes = append(r.bytes, '\r', '\n')
}

func (r *reply) header(kind byte, n int) { r.line(kind, strconv.Itoa(n)) }
func (r *reply) ok()                     { r.line('+', "OK") }
func (r *reply) status(text string)      { r.line('+', text) }
func (r *reply) fault(text string)       { r.line('-', text) }
func (r *reply) integer(n int)           { r.header(':', n) }
func (r *reply) array(n int)             { r.header('*', n) }

func (r *reply) bulk(text string) {
	r.header('$', len(text))
	r.bytes = append(r.bytes, text...)
	r.bytes = append(r.bytes, '\r', '\n')
}

func (r *reply) bulks(texts ...string) {
	r.array(len(texts))
	for _, text := range texts {
		r.bulk(text)
	}
}

func (r *reply) items(items ...any) {
	for _, item := range items {
		switch item := item.(type) {
		case string:
			r.bulk(item)
		case int:
			r.integer(item)
		}
	}
}

// pairs begins a map of n keys and values.
func (r *reply) pairs(n int) {
	if r.resp3 {
		r.header('%', n)
		return
	}
	r.array(2 * n)
}

// push begins an unsolicited message.
func (r *reply) push(n int) {
	if r.resp3 {
		r.header('>', n)
		return
	}
	r.array(n)
}

func (r *reply) null() {
	if r.resp3 {
		r.line('_', "")
		return
	}
	r.header('$', -1)
}

func (r *reply) text(text string) {
	if r.resp3 {
		r.header('=', len("txt:")+len(text))
		r.bytes = append(append(r.bytes, "txt:"...), text...)
		r.bytes = append(r.bytes, '\r', '\n')
		return
	}
	r.bulk(text)
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
