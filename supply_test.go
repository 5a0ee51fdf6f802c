package azmtls_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// goList returns the lines that go list prints.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the same everywhere, and Wine has no go command")
	}
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	require.NoError(t, err)
	return strings.Fields(string(out))
}

// modulesOf returns the modules that a program with this package is built of.
func modulesOf(t *testing.T, pkg string) []string {
	modules := goList(t, "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", pkg)
	slices.Sort(modules)
	return slices.Compact(modules)
}

// A program that has azidentity gets two more modules with this library, and no test dependency.
func TestWhatAConsumerPullsIn(t *testing.T) {
	has := modulesOf(t, "github.com/Azure/azure-sdk-for-go/sdk/azidentity")
	var more []string
	for _, module := range modulesOf(t, ".") {
		if !slices.Contains(has, module) && module != "github.com/azmtls/azmtls" {
			more = append(more, module)
		}
	}
	require.Equal(t, []string{"github.com/google/go-tpm", "golang.org/x/sys"}, more)
}

// docs/dependencies.md explains what go.mod requires, all of it and nothing else.
func TestDependenciesAreExplained(t *testing.T) {
	page, err := os.ReadFile("docs/dependencies.md")
	require.NoError(t, err)
	var explained []string
	for _, row := range regexp.MustCompile(`(?m)^\| ([\w./-]+\.[\w./-]+) \|`).FindAllStringSubmatch(string(page), -1) {
		explained = append(explained, row[1])
	}
	required := goList(t, "-m", "-f", "{{if not (or .Indirect .Main)}}{{.Path}}{{end}}", "all")
	require.ElementsMatch(t, required, explained)
}

// Every module that a consumer gets has a licence that allows use in any program: MIT, BSD or Apache-2.0.
func TestLicences(t *testing.T) {
	permissive := regexp.MustCompile(`(?s)Permission is hereby granted, free of charge|` +
		`Redistribution and use in source and binary forms|Apache License\s+Version 2\.0`)
	folders := goList(t, "-deps", "-f", "{{with .Module}}{{.Dir}}{{end}}", ".")
	slices.Sort(folders)
	for _, folder := range slices.Compact(folders) {
		files, err := filepath.Glob(filepath.Join(folder, "LICENSE*"))
		require.NoError(t, err)
		require.NotEmpty(t, files, folder)
		text, err := os.ReadFile(files[0])
		require.NoError(t, err)
		require.Regexp(t, permissive, string(text), folder)
	}
}
