package cli

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"headway/client"
	"headway/internal/cmdline"
	"headway/internal/config"
	"headway/internal/local"
)

// remote says which service a command asks, and as whom.
type remote struct {
	local.Target
	configFile string         // of the keys in files
	flags      *pflag.FlagSet // as given; they may name settings, too
}

// addFlags adds the flags of a command that asks a service, and of those below it.
func (r *remote) addFlags(cmd *cobra.Command) *cobra.Command {
	cmd.PersistentFlags().DurationVar(&r.Timeout, "timeout", 30*time.Second, "time for each request, its repetitions included")
	return r.addConnectionFlags(cmd)
}

// addConnectionFlags adds the flags that say which service, and as whom.
func (r *remote) addConnectionFlags(cmd *cobra.Command) *cobra.Command {
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return r.check(cmd) }
	r.Token = os.Getenv(config.EnvToken)
	f := cmd.PersistentFlags()
	f.StringVar(&r.Server, "server", os.Getenv(config.EnvServer), "URL of the service ("+config.EnvServer+"); without one the service of this machine is found")
	f.StringVar(&r.TokenFile, "token-file", os.Getenv(config.EnvTokenFile), "file with an API key ("+config.EnvTokenFile+", or the key itself in "+config.EnvToken+")")
	f.StringVar(&r.CAFile, "ca-file", os.Getenv(config.EnvCAFile), "who signs the certificate of the service, PEM ("+config.EnvCAFile+")")
	f.StringVar(&r.CertFile, "cert-file", "", "certificate to show to the service, PEM")
	f.StringVar(&r.KeyFile, "key-file", "", "key of that certificate, PEM")
	f.StringVar(&r.DataDir, "data-dir", os.Getenv(config.EnvDataDir), "data directory of the service of this machine ("+config.EnvDataDir+"); without one ./data and /var/lib/headway are looked at")
	return cmd
}

// addConfigFlag adds the flag that names the configuration of a service.
func (r *remote) addConfigFlag(cmd *cobra.Command) *cobra.Command {
	cmd.PersistentFlags().StringVar(&r.configFile, "config", os.Getenv(config.ConfigEnv), "configuration of a service that does not run, for its data directory and audit trail ("+config.ConfigEnv+")")
	return cmd
}

// check refuses flags that no service can be reached with.
func (r *remote) check(cmd *cobra.Command) error {
	r.flags = cmd.Flags()
	if f := cmd.Flags().Lookup("timeout"); f != nil && r.Timeout <= 0 {
		return cmdline.Errorf("--timeout %s: want more than 0", f.Value)
	}
	if r.Server != "" {
		if _, err := client.New(r.Server); err != nil {
			return cmdline.Errorf("--server: %w", err)
		}
	}
	if (r.CertFile == "") != (r.KeyFile == "") {
		return cmdline.Errorf("--cert-file and --key-file: want both or neither")
	}
	return nil
}

// ask makes f the run of a command that asks the service.
func (r *remote) ask(f func(*call) error, options ...client.Option) func(*call) error {
	return func(c *call) error { return r.connected(c, f, options...) }
}

// connected runs f with a client of the service.
func (r *remote) connected(c *call, f func(*call) error, options ...client.Option) (err error) {
	if c.Client, err = r.Connect(options...); err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// either runs service with a client of the service that is named or runs, or
// else files with the settings of that whose files no service has open.
func (r *remote) either(c *call, service func(*call) error, files func(config.Config) error) error {
	_, running, err := r.running()
	if err != nil {
		return err
	}
	if r.Server != "" || running {
		return r.connected(c, service)
	}
	settings, err := loadConfig(r.flags)
	if err != nil {
		return err
	}
	return files(settings)
}

// running finds the service of this machine, on the data directory that the
// configuration names if one was given.
func (r *remote) running() (local.Service, bool, error) {
	if r.configFile != "" && r.Server == "" {
		c, err := loadConfig(r.flags)
		if err != nil {
			return local.Service{}, false, err
		}
		r.DataDir = c.DataDir
	}
	return local.Running(r.DataDir)
}
