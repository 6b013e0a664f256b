package mixin

import (
	"bytes"
	"fmt"
	"html/template"
	"strings"
)

// page is the HTML of the runbooks for the console.
var page = template.Must(template.New("runbooks").Funcs(template.FuncMap{"code": inlineCode, "for": forText}).Parse(`<!doctype html>
<!-- Made from tools/mixin by 'go run ./tools/mixin/generate'; change it there. -->
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Headway runbooks</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="assets/style.css">
</head>
<body>
<header class="top"><h1>Headway</h1><nav aria-label="Pages"><a href="monitoring">Overview</a><a href="monitoring#page=routing-service-enhanced">Everything</a><a href="monitoring#page=alerts">Alerts</a><a href="runbooks" aria-current="page">Runbooks</a></nav></header>
<main class="runbooks">
<p>One for each alert. Critical: act now; warning: within a working day.</p>
{{range .}}{{if .Alerts}}<section>
<h2>{{.Name}}</h2>
<p>{{code .Intro}}</p>
{{range .Alerts}}<article id="{{.Anchor}}">
<h3><a href="#{{.Anchor}}">{{.Name}}</a> <span class="note">{{.Severity}}{{for .}}</span></h3>
<p>{{code .Meaning}}</p>
<pre tabindex="0"><code>{{.Expr}}</code></pre>
<h4>Causes</h4>
<ul>{{range .Causes}}<li>{{code .}}</li>{{end}}</ul>
<h4>What to do</h4>
<ul>{{range .Do}}<li>{{code .}}</li>{{end}}</ul>
</article>
{{end}}</section>
{{end}}{{end}}</main>
</body>
</html>
`))

// RunbookPage is the page of the runbooks in HTML.
func RunbookPage(groups []Group) ([]byte, error) {
	var b bytes.Buffer
	if err := page.Execute(&b, groups); err != nil {
		return nil, fmt.Errorf("write the page of the runbooks: %w", err)
	}
	return b.Bytes(), nil
}

func forText(a *Alert) string {
	if a.For == 0 {
		return ", at once"
	}
	return ", after " + Duration(a.For)
}

func inlineCode(s string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(s, "`") {
		part = template.HTMLEscapeString(part)
		if i%2 == 1 {
			part = "<code>" + part + "</code>"
		}
		b.WriteString(part)
	}
	return template.HTML(b.String()) //nolint:gosec // every part is escaped
}
