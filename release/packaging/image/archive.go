package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// build is what an image is made of besides its recipe and context.
type build struct {
	arch    string            // as Go names it
	tag     string            // name:version
	created time.Time         // of every file and of the image
	labels  map[string]string // beside those of the Dockerfile
}

// node is one file or directory of the layer.
type node struct {
	dir      bool
	mode     int64
	uid, gid int
	data     []byte
}

// blob is one content-addressed part of an image.
type blob struct {
	mediaType string
	data      []byte
}

func (b blob) hex() string    { return fmt.Sprintf("%x", sha256.Sum256(b.data)) }
func (b blob) digest() string { return "sha256:" + b.hex() }
func (b blob) path() string   { return "blobs/sha256/" + b.hex() }

// descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

func (b blob) descriptor() descriptor {
	return descriptor{MediaType: b.mediaType, Digest: b.digest(), Size: len(b.data)}
}

// writeArchive writes one tar file that is an OCI layout and what docker load
// takes at the same time. The same input gives the same bytes.
func writeArchive(w io.Writer, r recipe, context fs.FS, b build) error {
	nodes, err := collect(r.copies, context)
	if err != nil {
		return err
	}
	plain, err := layer(nodes, b.created)
	if err != nil {
		return err
	}
	packed, err := compress(plain)
	if err != nil {
		return err
	}
	layerBlob := blob{typeLayer, packed}
	configBlob, err := encode(typeConfig, config(r, b, blob{data: plain}.digest()))
	if err != nil {
		return err
	}
	manifestBlob, err := encode(typeManifest, map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest,
		"config": configBlob.descriptor(), "layers": []descriptor{layerBlob.descriptor()},
	})
	if err != nil {
		return err
	}
	entry := manifestBlob.descriptor()
	entry.Platform = &platform{b.arch, "linux"}
	_, version, _ := strings.Cut(b.tag, ":")
	entry.Annotations = map[string]string{
		"io.containerd.image.name":          "docker.io/library/" + b.tag,
		"org.opencontainers.image.ref.name": version,
	}
	index, err := encode(typeIndex, map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{entry}})
	if err != nil {
		return err
	}
	docker, err := encode("", []map[string]any{{
		"Config": configBlob.path(), "RepoTags": []string{b.tag}, "Layers": []string{layerBlob.path()},
	}})
	if err != nil {
		return err
	}
	files := map[string]node{
		"oci-layout":    {mode: 0o644, data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		"index.json":    {mode: 0o644, data: index.data},
		"manifest.json": {mode: 0o644, data: docker.data},
	}
	for _, part := range []blob{layerBlob, configBlob, manifestBlob} {
		add(files, part.path(), node{mode: 0o644, data: part.data})
	}
	return writeTar(w, files, b.created)
}

// config is what a runtime needs to start the image.
func config(r recipe, b build, diffID string) map[string]any {
	set := func(names []string) map[string]struct{} {
		m := make(map[string]struct{}, len(names))
		for _, name := range names {
			m[name] = struct{}{}
		}
		return m
	}
	labels := make(map[string]string, len(r.labels)+len(b.labels))
	for _, from := range []map[string]string{r.labels, b.labels} {
		for name, value := range from {
			labels[name] = value
		}
	}
	created := b.created.UTC().Format(time.RFC3339)
	return map[string]any{
		"created": created, "architecture": b.arch, "os": "linux",
		"config": map[string]any{
			"User": r.user, "ExposedPorts": set(r.ports), "Env": r.env, "Entrypoint": r.entrypoint, "Cmd": r.command,
			"Volumes": set(r.volumes), "StopSignal": r.stopSignal, "Labels": labels,
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{diffID}},
		"history": []map[string]string{{"created": created, "created_by": "COPY"}},
	}
}

// collect reads what the copies name. A later copy replaces an earlier one.
func collect(copies []fileCopy, context fs.FS) (map[string]node, error) {
	nodes := make(map[string]node)
	for _, c := range copies {
		info, err := fs.Stat(context, c.from)
		if err != nil {
			return nil, fmt.Errorf("COPY %s: %w", c.from, err)
		}
		to := strings.Trim(path.Clean(c.to), "/")
		if !info.IsDir() && strings.HasSuffix(c.to, "/") {
			to = path.Join(to, path.Base(c.from))
		}
		err = fs.WalkDir(context, c.from, func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			n, err := read(context, name, entry)
			if err != nil {
				return err
			}
			n.uid, n.gid = c.uid, c.gid
			add(nodes, path.Join(to, strings.TrimPrefix(strings.TrimPrefix(name, c.from), "/")), n)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("COPY %s: %w", c.from, err)
		}
	}
	return nodes, nil
}

// read gives a file the mode 0755 or 0644, so that the umask of who prepared
// the context does not reach the image.
func read(context fs.FS, name string, entry fs.DirEntry) (node, error) {
	info, err := entry.Info()
	if err != nil {
		return node{}, err
	}
	switch {
	case info.IsDir():
		return node{dir: true, mode: 0o755}, nil
	case !info.Mode().IsRegular():
		return node{}, fmt.Errorf("%s is neither a file nor a directory", name)
	}
	n := node{mode: 0o644}
	if info.Mode()&0o111 != 0 {
		n.mode = 0o755
	}
	n.data, err = fs.ReadFile(context, name)
	return n, err
}

// add puts a node in with the directories above it.
func add(nodes map[string]node, name string, n node) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, known := nodes[dir]; !known {
			nodes[dir] = node{dir: true, mode: 0o755}
		}
	}
	if name != "." && name != "" {
		nodes[name] = n
	}
}

func layer(nodes map[string]node, created time.Time) ([]byte, error) {
	var out bytes.Buffer
	err := writeTar(&out, nodes, created)
	return out.Bytes(), err
}

func compress(data []byte) ([]byte, error) {
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := zip.Write(data); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// writeTar writes nodes sorted by name, so that directories come first.
func writeTar(w io.Writer, nodes map[string]node, created time.Time) error {
	names := make([]string, 0, len(nodes))
	for name := range nodes {
		names = append(names, name)
	}
	slices.Sort(names)
	out := tar.NewWriter(w)
	for _, name := range names {
		n := nodes[name]
		header := &tar.Header{
			Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Name: name, Mode: n.mode,
			Uid: n.uid, Gid: n.gid, Size: int64(len(n.data)), ModTime: created,
		}
		if n.dir {
			header.Typeflag, header.Name = tar.TypeDir, name+"/"
		}
		if err := out.WriteHeader(header); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if _, err := out.Write(n.data); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return out.Close()
}

func encode(mediaType string, v any) (blob, error) {
	data, err := json.Marshal(v)
	return blob{mediaType, data}, err
}
