package cli

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"headway/client"
	"headway/internal/app"
	"headway/internal/config"
	"headway/internal/demo"
)

// remote says which service a command talks to, and as whom.
type remote struct {
	server, tokenFile, caFile, certFile, keyFile, dataDir string
	configFile                                            string // of the keys in files
	timeout                                               time.Duration
}

// dataDirs are where a service of this machine has its data directory.
var dataDirs = []string{"./data", "/var/lib/headway"}

func (r *remote) addFlags(cmd *cobra.Command) {
	r.addConnectionFlags(cmd)
	cmd.PersistentFlags().DurationVar(&r.timeout, "timeout", 30*time.Second, "time for each request, its repetitions included")
}

// addConnectionFlags adds the flags that say which service, and as whom.
func (r *remote) addConnectionFlags(cmd *cobra.Command) {
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return r.check(cmd) }
	f := cmd.PersistentFlags()
	f.StringVar(&r.server, "server", os.Getenv(config.EnvServer), "URL of the service ("+config.EnvServer+"); without one the service of this machine is found")
	f.StringVar(&r.tokenFile, "token-file", os.Getenv(config.EnvTokenFile), "file with an API key ("+config.EnvTokenFile+", or the key itself in "+config.EnvToken+")")
	f.StringVar(&r.caFile, "ca-file", os.Getenv(config.EnvCAFile), "who signs the certificate of the service, PEM ("+config.EnvCAFile+")")
	f.StringVar(&r.certFile, "cert-file", "", "certificate to show to the service, PEM")
	f.StringVar(&r.keyFile, "key-file", "", "key of that certificate, PEM")
	f.StringVar(&r.dataDir, "data-dir", os.Getenv(config.EnvDataDir), "data directory of the service of this machine ("+config.EnvDataDir+"); without one ./data and /var/lib/headway are looked at")
}

// check refuses flags that no service can be reached with.
func (r *remote) check(cmd *cobra.Command) error {
	if f := cmd.Flags().Lookup("timeout"); f != nil && r.timeout <= 0 {
		return usageError(fmt.Errorf("--timeout %s: want more than 0", f.Value))
	}
	if r.server != "" {
		c, err := client.New(r.server)
		if err != nil {
			return usageError(fmt.Errorf("--server: %w", err))
		}
		c.Close()
	}
	if (r.certFile == "") != (r.keyFile == "") {
		return usageError(errors.New("--cert-file and --key-file: want both or neither"))
	}
	return nil
}

// connect makes a client of the service.
func (r *remote) connect(more ...client.Option) (*client.Client, error) {
	d, now, err := r.open()
	if err != nil {
		return nil, err
	}
	options := []client.Option{client.WithHTTPClient(&http.Client{Transport: d}), client.WithUserAgent("headway-cli"), client.WithTimeout(r.timeout)}
	return client.New(now.url, append(options, more...)...)
}

// reached says where a service is and as whom it is asked.
type reached struct {
	url, token string
	local      bool   // it is the service of this machine
	cert       string // that it announced, as a hash
	dir        string // its data directory, if it announced itself
}

// reach finds the service.
func (r *remote) reach() (now reached, err error) {
	now.url = r.server
	if now.token, err = r.token(); err != nil || now.url != "" {
		return now, err
	}
	said, err := r.local()
	if err != nil {
		return now, err
	}
	now.url, now.local, now.cert, now.dir = said.URL, true, said.CertSHA256, said.dir
	if now.token == "" && said.TokenFile != "" {
		if raw, err := os.ReadFile(said.TokenFile); err == nil {
			now.token = strings.TrimSpace(string(raw))
		}
	}
	return now, nil
}

// secure says whom the service is believed to be.
func (r *remote) secure() (*tls.Config, error) {
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if r.caFile != "" {
		raw, err := os.ReadFile(r.caFile)
		if err != nil {
			return nil, fmt.Errorf("read --ca-file: %w", err)
		}
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("--ca-file %s has no certificate in PEM", r.caFile)
		}
	}
	if r.certFile != "" || r.keyFile != "" {
		pair, err := tls.LoadX509KeyPair(r.certFile, r.keyFile)
		if err != nil {
			return nil, fmt.Errorf("read --cert-file and --key-file: %w", err)
		}
		secure.Certificates = []tls.Certificate{pair}
	}
	return secure, nil
}

// checkToken refuses what cannot stand in a header.
func checkToken(token string) error {
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("the API key has white space or other characters that no key has; name a file with the key alone by --token-file")
	}
	return nil
}

// token is the key that flags and variables name, "" if none.
func (r *remote) token() (string, error) {
	if r.tokenFile == "" {
		token := os.Getenv(config.EnvToken)
		return token, checkToken(token)
	}
	raw, err := os.ReadFile(r.tokenFile)
	if err != nil {
		return "", fmt.Errorf("read the API key: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	return token, checkToken(token)
}

// local finds the service of this machine: the one that announced itself in
// its data directory, else whatever answers at the default address.
func (r *remote) local() (announced, error) {
	said, found, err := r.announced()
	if err != nil || found {
		return said, err
	}
	if r.dataDir != "" {
		return said, &codedError{exitUnavailable, fmt.Errorf("no service runs on the data directory %s; start one with 'headway serve --data-dir %s', or name one with --server", r.dataDir, r.dataDir)}
	}
	return announced{Announcement: app.Announcement{URL: demo.DefaultServer}}, nil
}

// addConfigFlag adds the flag that names the configuration of a service.
func (r *remote) addConfigFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&r.configFile, "config", os.Getenv(config.ConfigEnv), "configuration of a service that does not run, for its data directory and audit trail ("+config.ConfigEnv+")")
}

// settings are those of the service that the flags and variables name.
func (r *remote) settings() (config.Config, error) {
	environ := append(os.Environ(), config.ConfigEnv+"="+r.configFile)
	if r.dataDir != "" {
		environ = append(environ, config.EnvDataDir+"="+r.dataDir)
	}
	c, err := config.Load(nil, environ, os.ReadFile)
	if err != nil {
		return c, usageError(err)
	}
	return c, nil
}

// useConfig makes the data directory that a configuration names the one that is
// looked at.
func (r *remote) useConfig() error {
	if r.configFile == "" || r.server != "" {
		return nil
	}
	c, err := r.settings()
	r.dataDir = c.DataDir
	return err
}

// announced is what a service of this machine said of itself, and where.
type announced struct {
	app.Announcement
	dir string
}

// announced reads what a service of this machine says of itself. found is false
// if none runs.
func (r *remote) announced() (said announced, found bool, err error) {
	for _, dir := range r.dirs() {
		said, found, err := announcement(dir)
		if _, unread := errors.AsType[*fs.PathError](err); unread && r.dataDir == "" {
			continue // of another user
		}
		if err != nil {
			return announced{}, false, err
		}
		if found && alive(said.PID) {
			return announced{said, dir}, true, nil
		}
	}
	return announced{}, false, nil
}

// announcement reads what a service has said of itself in its data directory,
// which it may not have taken back. found is false if there is none.
func announcement(dir string) (said app.Announcement, found bool, err error) {
	file := filepath.Join(dir, app.AnnounceFile)
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return said, false, nil
	}
	if err != nil {
		return said, false, err
	}
	if err := json.Unmarshal(raw, &said); err != nil {
		return said, false, fmt.Errorf("%s cannot be read: %w", file, err)
	}
	return said, true, nil
}

func (r *remote) dirs() []string {
	if r.dataDir != "" {
		return []string{r.dataDir}
	}
	return dataDirs
}

// alive reports whether there is a process; what was killed leaves its file.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// pin believes exactly one certificate: that which the service of this machine
// says it serves. Its names do not matter then.
func pin(c *tls.Config, want string) {
	c.InsecureSkipVerify = true // the certificate itself is compared below
	c.VerifyConnection = func(s tls.ConnectionState) error {
		sum := sha256.Sum256(s.PeerCertificates[0].Raw)
		if hex.EncodeToString(sum[:]) != want {
			return errors.New("the service has another certificate than the one that it announced")
		}
		return nil
	}
}

// do connects, does something and hangs up. out may be nil.
func (r *remote) do(out *output, f func(*client.Client) error, options ...client.Option) error {
	if out != nil {
		if err := out.check(); err != nil {
			return err
		}
	}
	c, err := r.connect(options...)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// where is the URL of the service.
func (r *remote) where() (string, error) {
	if r.server != "" {
		return r.server, nil
	}
	said, err := r.local()
	return said.URL, err
}
