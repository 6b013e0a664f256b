package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
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

// authorize adds the token to the header of a request.
func (c *Client) authorize(ctx context.Context, header http.Header) error {
	if c.token == nil {
		return nil
	}
	token, err := c.token(ctx)
	if err == nil {
		err = checkToken(token)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errToken, err)
	}
	header.Set("Authorization", "Bearer "+token)
	return nil
}

func readToken(path string) (string, error) {
	file, err := os.Open(path)
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
		return "", fmt.Errorf("read the token of %s: %w", path, err)
	}
	return text, nil
}
