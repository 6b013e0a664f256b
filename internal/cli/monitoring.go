package cli

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"headway/grafana"
	"headway/internal/cmdline"
	"headway/internal/config"
	"headway/internal/terminal"
	"headway/prometheus"
)

func newMonitoring() *cobra.Command {
	return group("monitoring", "Write the files for a Prometheus and a Grafana of your own", "", newMonitoringExport())
}

func newMonitoringExport() *cobra.Command {
	var targets []string
	cmd := command("export DIR", "Write scrape configuration, rules and dashboards into a directory",
		`Write prometheus/ (scrape configuration and rules) and grafana/ (dashboards and
their provisioning) into a directory, as they stand in the repository, with links
to the service at --external-url. Files that are there are replaced.

  headway monitoring export monitoring --external-url https://gateway.example/headway --target 10.0.0.1:8080`, func(c *call) error {
			settings, err := loadConfig(c.Flags())
			if err != nil {
				return err
			}
			if settings.External == "" {
				return cmdline.Errorf("--external-url is missing. Usage: %s", c.UseLine())
			}
			for _, t := range targets {
				if _, port, err := net.SplitHostPort(t); err != nil || port == "" || strings.ContainsAny(t, "'\"{}# \t\n") {
					return cmdline.Errorf("--target %q: want HOST:PORT", t)
				}
			}
			return c.exportMonitoring(c.args[0], strings.TrimSuffix(settings.External, "/"), targets)
		})
	cmd.Flags().String("external-url", os.Getenv(config.EnvExternalURL), "URL that people reach the service by ("+config.EnvExternalURL+")")
	cmd.Flags().StringSliceVar(&targets, "target", []string{"localhost:8080"}, "HOST:PORT that Prometheus scrapes; may be given several times")
	return cmd
}

func (c *call) exportMonitoring(dir, external string, targets []string) error {
	files := map[string][]byte{
		"prometheus/rules/routing-service.rules.yml": prometheus.RulesFor(external),
		"prometheus/prometheus.yml":                  prometheus.ConfigFor(targets),
	}
	from := grafana.FilesFor(external)
	err := fs.WalkDir(from, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files["grafana/"+name], err = fs.ReadFile(from, name)
		return err
	})
	if err != nil {
		return err
	}
	for name, content := range files {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // other users' services read them
			return err
		}
		if err := os.WriteFile(name, content, 0o644); err != nil { //nolint:gosec // other users' services read them
			return err
		}
	}
	return c.say("%s in %s, with links to %s\n", terminal.Count(len(files), "file"), dir, external)
}
