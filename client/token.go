package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// maxToken bounds a token in bytes.
const maxToken = 16 << 10

func checkToken(token string) error {
	switch {
	case token == "":
		return errors.New("the token is empty")
	case len(token) > maxToken:
		return fmt.Errorf("the token has more than %d bytes", maxToken)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("the token has white space or other characters that no token has")
	}
	return nil
}

// tokenFile reads a token again when its file changes.
type tokenFile struct {
	path string

	mu   sync.Mutex
	last fs.FileInfo
	text string
}

func (f *tokenFile) token(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := os.Stat(f.path)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if f.last != nil && os.SameFile(f.last, now) && f.last.ModTime().Equal(now.ModTime()) && f.last.Size() == now.Size() {
		return f.text, nil
	}
	file, err := os.Open(f.path)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	defer func() { _ = file.Close() }()
	raw, err := io.ReadAll(io.LimitReader(file, maxToken+2))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	text := strings.TrimSpace(string(raw))
	if err := checkToken(text); err != nil {
		return "", fmt.Errorf("read the token of %s: %w", f.path, err)
	}
	f.last, f.text = now, text
	return text, nil
}
