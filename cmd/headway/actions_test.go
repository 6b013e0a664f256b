package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// actionsOf are the actions of the audit trail that sources write: literals that
// are given to a field, a constant or a parameter of that name.
func actionsOf(files []*ast.File) map[string]bool {
	found := map[string]bool{}
	literals := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil && anAction.MatchString(text) {
					found[text] = true
				}
			}
			return true
		})
	}
	takers := map[string]int{} // functions, and which parameter is the action
	each := func(look func(ast.Node)) {
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool { look(n); return true })
		}
	}
	each(func(n ast.Node) {
		f, ok := n.(*ast.FuncDecl)
		if !ok {
			return
		}
		i := 0
		for _, field := range f.Type.Params.List {
			for _, name := range field.Names {
				if name.Name == "action" {
					takers[f.Name.Name] = i
				}
				i++
			}
		}
	})
	each(func(n ast.Node) {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && strings.EqualFold(key.Name, "action") {
				literals(n.Value)
			}
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				name := ""
				switch left := left.(type) {
				case *ast.Ident:
					name = left.Name
				case *ast.SelectorExpr:
					name = left.Sel.Name
				}
				if strings.EqualFold(name, "action") && i < len(n.Rhs) {
					literals(n.Rhs[i])
				}
			}
		case *ast.ValueSpec:
			for i, name := range n.Names {
				if strings.HasPrefix(strings.ToLower(name.Name), "action") && i < len(n.Values) {
					literals(n.Values[i])
				}
			}
		case *ast.CallExpr:
			name := ""
			switch f := n.Fun.(type) {
			case *ast.Ident:
				name = f.Name
			case *ast.SelectorExpr:
				name = f.Sel.Name
			}
			if i, takes := takers[name]; takes && i < len(n.Args) {
				literals(n.Args[i])
			}
		}
	})
	return found
}

var anAction = regexp.MustCompile(`^[a-z]+\.[a-z_]+$`)

// The page of the trail lists each action that the code writes, and no other.
func TestThePageListsEveryAction(t *testing.T) {
	var files []*ast.File
	sources, err := filepath.Glob("../../internal/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	page, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| recorded | category | actions |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	listed := map[string]bool{}
	for _, quoted := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(table, -1) {
		if anAction.MatchString(quoted[1]) {
			listed[quoted[1]] = true
		}
	}
	written := actionsOf(files)
	if got, want := slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(written)); !slices.Equal(got, want) {
		t.Errorf("the page lists\n%q, and the code writes\n%q", got, want)
	}
}

// A new action is found however it is written.
func TestActionsAreFoundInSources(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "a.go", `package a
const actionNew = "a.constant"
var e = audit.Entry{Action: cmp.Or(x, "a.field"), Reason: "not.one"}
var r = []route{{path: "not.two", action: "a.route"}}
func (r *R) announce(ctx context.Context, action string) {}
func f() { r.announce(ctx, "a.argument"); e.Action = "a.assigned"; g("not.three") }
`, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a.argument", "a.assigned", "a.constant", "a.field", "a.route"}
	if got := slices.Sorted(maps.Keys(actionsOf([]*ast.File{f}))); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
