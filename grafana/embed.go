// Package grafana holds the dashboards, which the console draws too, and what
// Grafana finds them by.
package grafana

import (
	"bytes"
	"embed"
	"io/fs"
)

//go:embed dashboards/*.json provisioning
var files embed.FS

// console is what the dashboards link to.
const console = "http://localhost:8080/console"

// FilesFor has dashboards/ and provisioning/ with links to the service at a URL.
func FilesFor(external string) fs.FS { return linked{files, external + "/console"} }

// DashboardsFor has the files of the dashboards at its root, with links to the
// service at a URL.
func DashboardsFor(external string) fs.FS {
	root, err := fs.Sub(files, "dashboards")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return linked{root, external + "/console"}
}

// linked are files whose links lead to another console.
type linked struct {
	fs.FS
	console string
}

// ReadFile implements [fs.ReadFileFS].
func (l linked) ReadFile(name string) ([]byte, error) {
	content, err := fs.ReadFile(l.FS, name)
	return bytes.ReplaceAll(content, []byte(console), []byte(l.console)), err
}
