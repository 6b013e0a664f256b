// Command typecheck checks the types of all packages of a module and their tests
// for another system, from the sources. go vet would compile every dependency for
// that system first, which takes minutes on a bare machine.
//
//	typecheck DIRECTORY GOOS
package main

import (
	"fmt"
	"os"

	"golang.org/x/tools/go/packages"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: typecheck DIRECTORY GOOS")
		os.Exit(2)
	}
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedDeps |
			packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo | packages.NeedModule,
		Dir: os.Args[1], Tests: true, Env: append(os.Environ(), "GOOS="+os.Args[2], "CGO_ENABLED=0"),
	}, "./...")
	if err == nil && len(loaded) == 0 {
		err = fmt.Errorf("%s has no packages", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "typecheck:", err)
		os.Exit(1)
	}
	if packages.PrintErrors(loaded) > 0 {
		os.Exit(1)
	}
}
