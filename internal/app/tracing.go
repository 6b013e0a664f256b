package app

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"time"

	"headway/internal/outbound"
	"headway/internal/tracing"
)

const (
	tracesPath    = "/v1/traces"     // of an OTLP collector
	tracesTimeout = 10 * time.Second // of one call
)

// openTracing makes the tracer, without connecting, unless it is not configured.
func (a *App) openTracing(context.Context) error {
	c := a.config.Tracing
	if c.Endpoint == "" {
		return nil
	}
	if !c.AllowLinkLocal {
		if err := mayCall("tracing.otlp_endpoint", c.Endpoint); err != nil {
			return err
		}
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil { // the configuration has checked it
		return errors.New("tracing.otlp_endpoint is not a URL")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = tracesPath
	}
	o := tracing.Options{
		Endpoint: u.String(), Share: c.SampleShare, Metrics: a.metrics, Log: a.log,
		Service: map[string]string{"service.name": "headway", "service.version": a.version, "service.instance.id": a.instance},
		Client: outbound.NewClient(outbound.Options{
			Timeout: tracesTimeout, AllowLinkLocal: c.AllowLinkLocal, Setting: "tracing.allow_link_local", Count: a.calls.OTLP,
		}),
	}
	if c.HeadersFile != "" {
		o.Header = func() (http.Header, error) { return readHeader(c.HeadersFile) }
		if _, err := o.Header(); err != nil {
			return fmt.Errorf("tracing.otlp_headers_file: %w", err)
		}
	}
	a.tracer, err = tracing.New(o)
	return err
}

// readHeader reads header lines. The error has nothing of them.
func readHeader(file string) (http.Header, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	text = append(bytes.TrimSpace(text), "\n\n"...)
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(text))).ReadMIMEHeader()
	if err != nil || strings.TrimSpace(string(text)) == "" {
		return nil, fmt.Errorf("%s: want lines such as Authorization: Bearer …", file)
	}
	return http.Header(h), nil
}
