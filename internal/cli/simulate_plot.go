package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"headway/internal/cmdline"
	"headway/internal/plot"
	"headway/internal/sim"
)

// checkPlot refuses a name that no plots can be written to.
func checkPlot(name string) error {
	ext := filepath.Ext(name)
	switch dir := filepath.Dir(name); {
	case ext == "" || isDir(name):
		return nil
	case !slices.Contains(plot.Formats, strings.ToLower(ext)):
		return cmdline.Errorf("--plot %s: want a name that ends in %s, or a directory", name, strings.Join(plot.Formats, " or "))
	case !isDir(dir):
		return cmdline.Errorf("--plot %s: there is no directory %s", name, dir)
	}
	return nil
}

func isDir(name string) bool {
	is, err := os.Stat(name)
	return err == nil && is.IsDir()
}

// writePlots writes the plots of a report: into one file, or each as SVG into a
// directory, which is made.
func writePlots(name string, r *sim.Report) error {
	names, charts := r.Charts()
	if len(charts) == 0 {
		return nil
	}
	if filepath.Ext(name) != "" && !isDir(name) {
		return writePlot(name, charts...)
	}
	if err := os.MkdirAll(name, 0o755); err != nil { //nolint:gosec // pictures are for all to see
		return fmt.Errorf("write the plots: %w", err)
	}
	for i := range charts {
		if err := writePlot(filepath.Join(name, names[i]+".svg"), charts[i]); err != nil {
			return err
		}
	}
	return nil
}

func writePlot(name string, charts ...plot.Chart) error {
	var picture bytes.Buffer
	if err := plot.Write(&picture, name, charts...); err != nil {
		return err
	}
	if err := os.WriteFile(name, picture.Bytes(), 0o644); err != nil { //nolint:gosec // pictures are for all to see
		return fmt.Errorf("write the plots: %w", err)
	}
	return nil
}
