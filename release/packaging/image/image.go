package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// owner is the user and group of the service in the image.
const owner = 10001

// files is the content of the image. Modes are explicit, so that the builder's
// umask has no effect.
var files = []node{
	{name: "etc/"},
	{name: "etc/group", from: "group", mode: 0o644},
	{name: "etc/passwd", from: "passwd", mode: 0o644},
	{name: "etc/ssl/"},
	{name: "etc/ssl/certs/"},
	{name: "etc/ssl/certs/ca-certificates.crt", from: "ca-certificates.crt", mode: 0o644},
	{name: "usr/"},
	{name: "usr/bin/"},
	{name: "usr/bin/headway", from: "headway", mode: 0o755},
	{name: "var/"},
	{name: "var/lib/"},
	{name: "var/lib/headway/", owner: owner},
}

type node struct {
	name  string
	from  string // in the context; "" of a directory
	mode  int64
	owner int
}

// config is the runtime configuration. deploy/docker/Dockerfile has the same; a
// test compares them.
var config = v1.Config{
	User:         fmt.Sprintf("%d:%d", owner, owner), // numbers: Kubernetes then knows that it is not root
	ExposedPorts: map[string]struct{}{"8080/tcp": {}},
	Env:          []string{"HEADWAY_DATA_DIR=/var/lib/headway"},
	Entrypoint:   []string{"/usr/bin/headway"},
	Cmd:          []string{"serve"},
	Volumes:      map[string]struct{}{"/var/lib/headway": {}},
	StopSignal:   "SIGTERM",
}

var labels = map[string]string{
	"org.opencontainers.image.title":       "headway",
	"org.opencontainers.image.description": "Places requests on a fleet of AI model servers",
	"org.opencontainers.image.licenses":    "Apache-2.0",
}

// build is what differs between images.
type build struct {
	arch    string // as Go names it
	tag     string // NAME:VERSION
	created time.Time
	labels  map[string]string
}

// write writes an OCI layout, with the manifest of docker load beside its
// index.
func write(w io.Writer, context fs.FS, b build) error {
	image, err := b.image(context)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "image-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	_, version, _ := strings.Cut(b.tag, ":")
	names := map[string]string{"io.containerd.image.name": "docker.io/library/" + b.tag, "org.opencontainers.image.ref.name": version}
	if err := path.AppendImage(image, layout.WithPlatform(v1.Platform{Architecture: b.arch, OS: "linux"}), layout.WithAnnotations(names)); err != nil {
		return err
	}
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	blob := func(d v1.Descriptor) string { return "blobs/sha256/" + d.Digest.Hex }
	docker, err := json.Marshal(tarball.Manifest{{Config: blob(manifest.Config), RepoTags: []string{b.tag}, Layers: []string{blob(manifest.Layers[0])}}})
	if err != nil {
		return err
	}
	if err := path.WriteFile("manifest.json", docker, 0o600); err != nil {
		return err
	}
	var all []node
	of := os.DirFS(dir)
	err = fs.WalkDir(of, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case entry.IsDir():
			all = append(all, node{name: name + "/"})
		default:
			all = append(all, node{name: name, from: name, mode: 0o644})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return writeTar(w, of, all, b.created)
}

func (b build) image(context fs.FS) (v1.Image, error) {
	var plain bytes.Buffer
	if err := writeTar(&plain, context, files, b.created); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(plain.Bytes())), nil }
	layer, err := tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	config, created := config, v1.Time{Time: b.created}
	config.Labels = b.labels
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{Architecture: b.arch, OS: "linux", Created: created, Config: config, RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{Created: created, CreatedBy: "COPY"}})
}

func writeTar(w io.Writer, context fs.FS, nodes []node, created time.Time) error {
	out := tar.NewWriter(w)
	for _, n := range nodes {
		header := &tar.Header{Format: tar.FormatUSTAR, Typeflag: tar.TypeDir, Name: n.name, Mode: 0o755, Uid: n.owner, Gid: n.owner, ModTime: created}
		var data []byte
		if n.from != "" {
			var err error
			if data, err = fs.ReadFile(context, n.from); err != nil {
				return err
			}
			header.Typeflag, header.Mode, header.Size = tar.TypeReg, n.mode, int64(len(data))
		}
		if err := out.WriteHeader(header); err != nil {
			return fmt.Errorf("write %s: %w", n.name, err)
		}
		if _, err := out.Write(data); err != nil {
			return fmt.Errorf("write %s: %w", n.name, err)
		}
	}
	return out.Close()
}
