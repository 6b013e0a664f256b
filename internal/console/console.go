// Package console is the embedded web console. 'make console' builds its assets
// from web/ into dist/, which is committed; tools/mixin writes the pages
// without scripts.
package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed dist pages
var files embed.FS

// policy allows the page its own script, style and origin. uPlot sets element
// styles by script, which needs no permission.
const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pages are the paths of the one document. They are part of the interface, so
// links stay valid.
var pages = map[string]bool{
	"": true, "monitoring": true, "alerts": true, "fleet": true, "decisions": true, "policy": true, "strategies": true,
	"audit": true, "keys": true, "queue": true,
}

type asset struct {
	kind  string
	plain []byte
	small []byte // gzip
	etag  string
}

// Console serves the pages. It is safe for concurrent use.
type Console struct {
	index  *asset
	assets map[string]*asset // by path below /console/
}

// New makes a console for the dashboards, files NAME.json at the root of the
// file system.
func New(dashboards fs.FS) (*Console, error) {
	c := &Console{assets: map[string]*asset{}}
	for _, from := range []struct{ dir, below string }{{"dist", "assets/"}, {"pages", "pages/"}} {
		sub, err := fs.Sub(files, from.dir)
		if err == nil {
			err = c.add(sub, from.below, "*")
		}
		if err != nil {
			return nil, err
		}
	}
	c.index = c.assets["assets/index.html"]
	delete(c.assets, "assets/index.html")
	return c, c.add(dashboards, "dashboards/", "*.json")
}

func (c *Console) add(files fs.FS, below, pattern string) error {
	names, err := fs.Glob(files, pattern)
	if err != nil || len(names) == 0 {
		return fmt.Errorf("console: no files %s%s: %w", below, pattern, err)
	}
	for _, name := range names {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return fmt.Errorf("console: %w", err)
		}
		var small bytes.Buffer
		w, _ := gzip.NewWriterLevel(&small, gzip.BestCompression) // the level exists
		_, _ = w.Write(content)                                   // a buffer takes it
		_ = w.Close()
		sum := sha256.Sum256(content)
		kind := mime.TypeByExtension(path.Ext(name))
		c.assets[below+name] = &asset{kind, content, small.Bytes(), `"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	return nil
}

// ServeHTTP serves /console/: the written pages, and one document for all
// others.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/console" { // links are relative, so that they hold behind a proxy's prefix
		w.Header().Set("Location", "console/")
		w.WriteHeader(http.StatusPermanentRedirect)
		return
	}
	below := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/console"), "/")
	if id, ok := strings.CutPrefix(below, "heads/"); ok && id != "" && !strings.Contains(id, "/") { // the document's links hold one level up
		w.Header().Set("Location", "../fleet")
		w.WriteHeader(http.StatusFound)
		return
	}
	a := c.assets[below]
	if a == nil {
		a = c.assets["pages/"+below+".html"]
	}
	if a == nil && pages[below] {
		a = c.index
	}
	if a == nil {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache") // asked again each time, and answered 304
	h.Set("ETag", a.etag)
	h.Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == a.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := a.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = a.small
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}
