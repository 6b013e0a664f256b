package cli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/client"
	"headway/internal/config"
	"headway/internal/local"
)

// remote says which service a command talks to, and as whom.
type remote struct {
	server, tokenFile, caFile, certFile, keyFile, dataDir string
	configFile                                            string // of the keys in files
	timeout                                               time.Duration
}

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
	transport, url, err := r.open()
	if err != nil {
		return nil, err
	}
	options := []client.Option{client.WithHTTPClient(&http.Client{Transport: transport}), client.WithUserAgent("headway-cli"), client.WithTimeout(r.timeout)}
	return client.New(url, append(options, more...)...)
}

// open makes the transport to the service, and returns the URL of the service.
func (r *remote) open() (*local.Transport, string, error) {
	secure, err := r.secure()
	if err != nil {
		return nil, "", err
	}
	return local.Open(local.Target{Server: r.server, DataDir: r.dataDir, Token: r.token, TLS: secure})
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

// addConfigFlag adds the flag that names the configuration of a service.
func (r *remote) addConfigFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&r.configFile, "config", os.Getenv(config.ConfigEnv), "configuration of a service that does not run, for its data directory and audit trail ("+config.ConfigEnv+")")
}

// settings are those of the service that the flags and variables name.
func (r *remote) settings() (config.Config, error) {
	more := []string{config.ConfigEnv + "=" + r.configFile}
	if r.dataDir != "" {
		more = append(more, config.EnvDataDir+"="+r.dataDir)
	}
	return loadConfig(nil, more...)
}

// running finds the service of this machine, on the data directory that the
// configuration names if one was given.
func (r *remote) running() (local.Service, bool, error) {
	if r.configFile != "" && r.server == "" {
		c, err := r.settings()
		if err != nil {
			return local.Service{}, false, err
		}
		r.dataDir = c.DataDir
	}
	return local.Running(r.dataDir)
}

// where is the URL of the service.
func (r *remote) where() (string, error) {
	_, url, err := r.open()
	return url, err
}
