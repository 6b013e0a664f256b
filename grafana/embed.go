// Package grafana holds the dashboards, which the console draws too.
package grafana

import (
	"embed"
	"io/fs"
)

//go:embed dashboards/*.json
var files embed.FS

// Dashboards has the files of the dashboards at its root.
func Dashboards() fs.FS {
	root, err := fs.Sub(files, "dashboards")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return root
}
