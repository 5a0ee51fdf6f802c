package azmtls_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const surfaceFile = "testdata/api.txt"

// TestSurface: what is exported is a decision. testdata/api.txt lists it, and every name has a doc comment. -update
// writes the list anew.
func TestSurface(t *testing.T) {
	var names []string
	for _, folder := range []string{".", "mtls", "winstore", "tpmstore", "imdstest", "imdstest/storetest"} {
		names = append(names, exported(t, folder)...)
	}
	text := strings.Join(names, "\n") + "\n"
	if *update {
		require.NoError(t, os.WriteFile(surfaceFile, []byte(text), 0o644))
	}
	want, err := os.ReadFile(surfaceFile)
	require.NoError(t, err)
	require.Equal(t, string(want), text, "what is exported has changed: run go test -run Surface . -update")
}

// exported returns the exported names of a package, of every platform, and fails the test for one without a comment.
func exported(t *testing.T, folder string) []string {
	t.Helper()
	set := token.NewFileSet()
	paths, err := filepath.Glob(filepath.Join(folder, "*.go")) // of all platforms, as no loader of packages takes them
	require.NoError(t, err)
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, file)
	}
	documented, err := doc.NewFromFiles(set, files, folder)
	require.NoError(t, err)
	var names []string
	add := func(what, comment string) {
		full := documented.Name + "." + what
		known := strings.HasSuffix(what, ".Error()") || strings.HasSuffix(what, ".String()")
		if !known && strings.TrimSpace(comment) == "" {
			t.Errorf("%s has no doc comment", full)
		}
		names = append(names, full)
	}
	values := func(all []*doc.Value) {
		for _, v := range all {
			for _, spec := range v.Decl.Specs {
				spec := spec.(*ast.ValueSpec)
				for _, n := range spec.Names {
					if n.IsExported() {
						add(n.Name, v.Doc+spec.Doc.Text()+spec.Comment.Text())
					}
				}
			}
		}
	}
	functions := func(of string, all []*doc.Func) {
		for _, f := range all {
			add(of+f.Name+"()", f.Doc)
		}
	}
	values(documented.Consts)
	values(documented.Vars)
	functions("", documented.Funcs)
	for _, typ := range documented.Types {
		add(typ.Name, typ.Doc)
		values(typ.Consts)
		values(typ.Vars)
		functions("", typ.Funcs)
		functions(typ.Name+".", typ.Methods)
		for name, comment := range fields(typ) {
			add(typ.Name+"."+name, comment)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// fields returns the exported fields of a struct, or the methods of an interface, with their comments. One comment
// may speak of the fields below it too, where it names them.
func fields(typ *doc.Type) map[string]string {
	var list *ast.FieldList
	switch t := typ.Decl.Specs[0].(*ast.TypeSpec).Type.(type) {
	case *ast.StructType:
		list = t.Fields
	case *ast.InterfaceType:
		list = t.Methods
	default:
		return nil
	}
	comments, above := map[string]string{}, typ.Doc
	for _, field := range list.List {
		comment := field.Doc.Text() + field.Comment.Text()
		for _, n := range field.Names {
			if !n.IsExported() {
				continue
			}
			comments[n.Name] = comment
			if comment == "" && strings.Contains(above, n.Name) {
				comments[n.Name] = above
			}
		}
		if comment != "" {
			above = comment
		}
	}
	return comments
}
