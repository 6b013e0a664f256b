package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

const ours = "../../../deploy/docker/Dockerfile"

var epoch = time.Unix(1_700_000_000, 0)

// contextOf is what release/image prepares, with a small binary.
func contextOf() fstest.MapFS {
	return fstest.MapFS{
		"headway":             {Data: []byte("\x7fELF"), Mode: 0o755},
		"ca-certificates.crt": {Data: []byte("-----BEGIN CERTIFICATE-----"), Mode: 0o600},
		"passwd":              {Data: []byte("headway:x:10001:10001::/:/sbin/nologin\n"), Mode: 0o644},
		"group":               {Data: []byte("headway:x:10001:\n"), Mode: 0o644},
		"state":               {Mode: fs.ModeDir | 0o700},
	}
}

func archive(t *testing.T, context fs.FS) []byte {
	t.Helper()
	var out bytes.Buffer
	b := build{arch: "arm64", tag: "headway:1.2.3", created: epoch, labels: map[string]string{"org.opencontainers.image.version": "v1.2.3"}}
	if err := write(&out, context, b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type entry struct {
	header *tar.Header
	data   []byte
}

func untar(t *testing.T, data []byte) map[string]entry {
	t.Helper()
	all := make(map[string]entry)
	in := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = entry{h, text}
	}
}

func decode[T any](t *testing.T, e entry) (v T) {
	t.Helper()
	if err := json.Unmarshal(e.data, &v); err != nil {
		t.Fatalf("%v in %s", err, e.data)
	}
	return v
}

type descriptor struct {
	Digest string
	Size   int
}

type manifest struct {
	Config descriptor
	Layers []descriptor
}

// image follows the archive from its index as a runtime does.
func image(t *testing.T, files map[string]entry) (m manifest, config, layer entry) {
	t.Helper()
	index := decode[struct{ Manifests []descriptor }](t, files["index.json"])
	at := func(d descriptor) entry {
		e := files["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
		if len(e.data) != d.Size || fmt.Sprintf("sha256:%x", sha256.Sum256(e.data)) != d.Digest {
			t.Fatalf("the blob of %+v is another", d)
		}
		return e
	}
	m = decode[manifest](t, at(index.Manifests[0]))
	return m, at(m.Config), at(m.Layers[0])
}

func gunzip(t *testing.T, data []byte) []byte {
	t.Helper()
	in, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSameInputGivesTheSameBytes(t *testing.T) {
	first := archive(t, contextOf())
	for range 20 {
		if !bytes.Equal(first, archive(t, contextOf())) {
			t.Fatal("a second run gave other bytes")
		}
	}
	umask := contextOf()
	umask["passwd"].Mode, umask["state"].Mode, umask["headway"].Mode = 0o600, fs.ModeDir|0o755, 0o700
	if !bytes.Equal(first, archive(t, umask)) {
		t.Error("the umask of the builder reached the image")
	}
}

func TestLayerHoldsTheFilesAlone(t *testing.T) {
	_, _, packed := image(t, untar(t, archive(t, contextOf())))
	files := untar(t, gunzip(t, packed.data))
	want := map[string]string{
		"usr/": "755 0:0", "usr/bin/": "755 0:0", "usr/bin/headway": "755 0:0",
		"etc/": "755 0:0", "etc/passwd": "644 0:0", "etc/group": "644 0:0",
		"etc/ssl/": "755 0:0", "etc/ssl/certs/": "755 0:0", "etc/ssl/certs/ca-certificates.crt": "644 0:0",
		"var/": "755 0:0", "var/lib/": "755 0:0", "var/lib/headway/": "755 10001:10001",
	}
	got := make(map[string]string)
	for name, e := range files {
		got[name] = fmt.Sprintf("%o %d:%d", e.header.Mode, e.header.Uid, e.header.Gid)
		if !e.header.ModTime.Equal(epoch) {
			t.Errorf("%s is of %v", name, e.header.ModTime)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the layer has\n%v, want\n%v", got, want)
	}
}

func TestRuntimeGetsTheConfig(t *testing.T) {
	files := untar(t, archive(t, contextOf()))
	m, raw, packed := image(t, files)
	config := decode[struct {
		Architecture string
		Config       struct {
			User, StopSignal     string
			Entrypoint, Cmd, Env []string
			ExposedPorts         map[string]struct{}
			Labels               map[string]string
		}
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}](t, raw)
	c := config.Config
	if c.User != "10001:10001" || !slices.Equal(c.Entrypoint, []string{"/usr/bin/headway"}) || !slices.Equal(c.Cmd, []string{"serve"}) ||
		c.StopSignal != "SIGTERM" || config.Architecture != "arm64" || c.Labels["org.opencontainers.image.version"] != "v1.2.3" {
		t.Errorf("the runtime gets %+v", config)
	}
	if _, ok := c.ExposedPorts["8080/tcp"]; !ok {
		t.Errorf("ports %v", c.ExposedPorts)
	}
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(gunzip(t, packed.data))); config.Rootfs.DiffIDs[0] != want {
		t.Errorf("diff id %s, want %s", config.Rootfs.DiffIDs[0], want)
	}
	docker := decode[[]struct {
		Config   string
		RepoTags []string
		Layers   []string
	}](t, files["manifest.json"])[0]
	if docker.RepoTags[0] != "headway:1.2.3" || !strings.HasSuffix(m.Config.Digest, filepath.Base(docker.Config)) || !strings.HasSuffix(m.Layers[0].Digest, filepath.Base(docker.Layers[0])) {
		t.Errorf("docker is told %+v, the manifest says %+v", docker, m)
	}
}

func TestUserOfTheImageIsInItsPasswd(t *testing.T) {
	for name, want := range map[string]string{"passwd": "headway:x:10001:10001:", "group": "headway:x:10001:"} {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(ours), name))
		if err != nil || !strings.HasPrefix(string(text), want) {
			t.Errorf("%s is %q (%v), want %q", name, text, err, want)
		}
	}
}

// Those who build with docker get the same image.
func TestTheDockerfileSaysTheSame(t *testing.T) {
	text, err := os.ReadFile(ours)
	if err != nil {
		t.Fatal(err)
	}
	list := func(words []string) string { return `["` + strings.Join(words, `","`) + `"]` }
	want := []string{
		"FROM scratch", "USER " + config.User, "ENV " + config.Env[0], "ENTRYPOINT " + list(config.Entrypoint), "CMD " + list(config.Cmd), "STOPSIGNAL " + config.StopSignal,
		"COPY --chown=" + config.User + " state/ /var/lib/headway/",
	}
	for port := range config.ExposedPorts {
		want = append(want, "EXPOSE "+strings.TrimSuffix(port, "/tcp"))
	}
	for volume := range config.Volumes {
		want = append(want, "VOLUME "+volume)
	}
	for name, value := range labels {
		if strings.Contains(value, " ") {
			value = strconv.Quote(value)
		}
		want = append(want, "LABEL "+name+"="+value)
	}
	for _, n := range files {
		if n.from != "" {
			want = append(want, "COPY "+n.from+" /"+n.name)
		}
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			got = append(got, line)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the Dockerfile says\n%s\nthe image is\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	context := contextOf()
	delete(context, "passwd")
	if err := write(io.Discard, context, build{tag: "headway:1"}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "passwd") {
		t.Errorf("%v, want passwd and that it does not exist", err)
	}
}

func TestLinkOutOfTheContextIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, contextOf()); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "image.tar")
	args := []string{"--context", dir, "--out", out, "--tag", "headway:1"}
	if err := run(args, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "passwd")), os.Symlink("/etc/passwd", filepath.Join(dir, "passwd"))); err != nil {
		t.Fatal(err)
	}
	if err := run(args, io.Discard); err == nil || !strings.Contains(err.Error(), "passwd") {
		t.Errorf("%v, want a refusal: the link leads out of the context", err)
	}
}

func TestFailedRunLeavesNoFile(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "image.tar")
	err := run([]string{"--context", dir, "--out", out, "--tag", "headway:1"}, io.Discard)
	left, _ := os.ReadDir(dir)
	if err == nil || len(left) != 0 {
		t.Errorf("%v, and %v is left", err, left)
	}
}
