package main

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// serviceUser is a user who is not root and owns nothing else.
const serviceUser = 65534

// packaged is an installation as the Debian package makes it: the service's user
// owns the data directory and the trail, and root the directory of the trail.
type packaged struct {
	*shell
	data, trail string
}

func newPackaged(t *testing.T) *packaged {
	if os.Getuid() != 0 {
		t.Skip("only root works on the files of another user")
	}
	dir := t.TempDir()
	k := &packaged{data: filepath.Join(dir, "data"), trail: filepath.Join(dir, "log", "routing_audit.log")}
	k.shell = &shell{TB: t, dir: dir}
	k.write("headway.yaml", "listen: 127.0.0.1:0\ndata_dir: "+k.data+"\naudit: {file: "+k.trail+"}\nredis: {mode: off}\nhttp: {lame_duck: 1ms}\n")
	err := errors.Join(
		os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "headway.yaml"), 0o644),
		os.Mkdir(k.data, 0o750), os.Chown(k.data, serviceUser, serviceUser),
		os.Mkdir(filepath.Dir(k.trail), 0o755), os.WriteFile(k.trail, nil, 0o600), os.Chown(k.trail, serviceUser, serviceUser))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// serve starts the service as its user.
func (k *packaged) serve() *process {
	k.Helper()
	cmd := command(k, "serve", "--config", filepath.Join(k.dir, "headway.yaml"))
	// By this name a program is found that lies where another user may not go.
	cmd.Path, cmd.Dir = "/proc/self/exe", k.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: serviceUser, Gid: serviceUser}}
	return start(k, k.data, cmd)
}

// owned wants every file to be the service's.
func (k *packaged) owned() {
	k.Helper()
	for _, dir := range []string{k.data, filepath.Dir(k.trail)} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || path == filepath.Dir(k.trail) {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			if owner := info.Sys().(*syscall.Stat_t).Uid; owner != serviceUser {
				k.Errorf("%s belongs to user %d", path, owner)
			}
			return nil
		})
		if err != nil {
			k.Error(err)
		}
	}
}

// What root does while the service does not run leaves files that it can use.
func TestRootWorksOnAServicesFilesAsItsUser(t *testing.T) {
	k := newPackaged(t)
	k.cli(exitOK, "keys", "create", "--config", "headway.yaml", "--role", "admin", "--name", "first", "--out", "admin.key")
	k.cli(exitOK, "keys", "list", "--config", "headway.yaml")
	k.cli(exitOK, "tls", "init", "--dir", "data/tls/")
	k.owned()
	info, err := os.Stat(filepath.Join(k.dir, "admin.key"))
	if err != nil || info.Mode() != 0o600 || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Fatalf("root's own file: %v, %v", info, err)
	}
	key, err := os.ReadFile(filepath.Join(k.dir, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}

	p := k.serve()
	p.client.Transport = bearer(strings.TrimSpace(string(key)))
	p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody("gpu"))
	p.stop()
	if trail, err := os.ReadFile(k.trail); err != nil || !strings.Contains(string(trail), `"actor":{"type":"local","id":"root","via":"cli"}`) || strings.Contains(string(trail), "audit.damaged") {
		t.Errorf("%v: the trail:\n%s", err, trail)
	}

	k.cli(exitOK, "state", "export", "--config", "headway.yaml", "backup.jsonl")
	if err := os.Remove(filepath.Join(k.data, "headway.db")); err != nil {
		t.Fatal(err)
	}
	k.cli(exitOK, "state", "import", "--config", "headway.yaml", "backup.jsonl")
	k.owned()
	p = k.serve()
	p.client.Transport = bearer(strings.TrimSpace(string(key)))
	p.must(http.StatusOK, "GET", "/api/v1/heads/gpu", "")
	p.stop()
}

// bearer sends a key with each request.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// A kill in the middle of a line does not stop the packaged service, which may
// make no file beside its trail.
func TestThePackagedServiceStartsAfterATornLine(t *testing.T) {
	k := newPackaged(t)
	p := k.serve()
	p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody("gpu"))
	p.signal(syscall.SIGKILL)
	<-p.exited
	const begun = `{"v":1,"seq":9`
	f, err := os.OpenFile(k.trail, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(begun); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	k.serve().stop()
	aside := filepath.Join(k.data, strings.ReplaceAll(k.trail[1:], "/", "-"))
	if torn, err := os.ReadFile(aside + ".torn"); err != nil || string(torn) != begun {
		t.Errorf("aside is %q, %v", torn, err)
	}
	out, errs := k.cli(exitOK, "audit", "verify", "--config", "headway.yaml")
	has(t, out, "is sound", "checkpoint: record")
	has(t, errs, "reading "+k.trail)
}
