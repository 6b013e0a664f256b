package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"headway/internal/local"
	"headway/internal/pki"
)

func newTLS() *cobra.Command {
	return group("tls", "Make certificates for a first installation", `Make certificates for a first installation: a small authority in a directory,
a certificate of it for the service and, if wanted, for clients. If you have
certificates already, you need none of this: name their files with --tls-cert-file,
--tls-key-file and --tls-client-ca-file.`,
		newTLSInit(), newTLSClient())
}

const defaultTLSDir = "./data/tls"

func newTLSInit() *cobra.Command {
	var dir string
	var hosts []string
	cmd := command("init", "Make an authority and a certificate for the service",
		`Make an authority, unless the directory has one, and a certificate for the
service, which is for the names that --host gives or else for localhost and this
machine's name. Files are never overwritten: for a certificate with other names,
move server.pem and server-key.pem away and run it again. The authority stays, so
clients need nothing new.`, func(c *call) error {
			dir = filepath.Clean(dir)
			cert, key := filepath.Join(dir, pki.ServerCertFile), filepath.Join(dir, pki.ServerKeyFile)
			err := local.AsOwner(func() error {
				authority, created, err := pki.OpenAuthority(dir, time.Now())
				if err != nil {
					return err
				}
				if created {
					c.note("made an authority; clients need its certificate: %s\n", filepath.Join(dir, pki.CACertFile))
				}
				return authority.Server(hosts, cert, key)
			}, dir, filepath.Dir(dir))
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%w; for a certificate with other names move %s and %s away and run this again: the authority stays, and clients need nothing new", err, cert, key)
			}
			if err != nil {
				return err
			}
			return c.say("--tls-cert-file %s --tls-key-file %s\n", cert, key)
		})
	cmd.Flags().StringVar(&dir, "dir", defaultTLSDir, "directory of the authority; it is made if it is missing")
	cmd.Flags().StringSliceVar(&hosts, "host", defaultHosts(), "names and addresses that the service is reached by")
	return cmd
}

// defaultHosts are this machine's names for itself.
func defaultHosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && name != "localhost" {
		hosts = append(hosts, name)
	}
	return hosts
}

func newTLSClient() *cobra.Command {
	var dir string
	cmd := command("client NAME", "Make a certificate for a head or an operator",
		`Make a certificate for a head or an operator, signed by the authority that
'headway tls init' made. NAME becomes its common name and, if it is one, its
URI; access.certificates says what NAME may do.`, func(c *call) error {
			if _, err := os.Stat(filepath.Join(dir, pki.CACertFile)); err != nil {
				return fmt.Errorf("there is no authority in %s: make one with 'headway tls init'", dir)
			}
			authority, _, err := pki.OpenAuthority(dir, time.Now())
			if err != nil {
				return err
			}
			file := filepath.Join(dir, clientFile(c.args[0]))
			cert, key := file+".pem", file+"-key.pem"
			if err := authority.Client(c.args[0], cert, key); err != nil {
				return err
			}
			return c.say("%s %s\n", cert, key)
		})
	cmd.Flags().StringVar(&dir, "dir", defaultTLSDir, "directory of the authority")
	return cmd
}

// clientFile is a file name made of a client's name.
func clientFile(name string) string {
	safe := []byte("client-" + name)
	for i, c := range safe {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '.' {
			safe[i] = '_'
		}
	}
	return string(safe)
}
