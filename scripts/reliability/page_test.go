package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const printed = `=== RUN   TestMatrix
    matrix_test.go:170: RELIABILITY {"name":"matrix","faults":80,"cells":1500,"deviations":0}
RELIABILITY {"name":"soak","seconds":60,"seed":9007199254740993,"calls":1,"faults":2,"mints":3,"evictions":4,` +
	`"recoveries":5,"wrong":0}
RELIABILITY {"name":"crash","system":"linux","kills":2000,"survived":2000}
RELIABILITY {"name":"crash","system":"linux, minting","kills":10,"survived":10}
RELIABILITY {"name":"model","sequences":100000,"steps":7,"seed":1}
RELIABILITY {"name":"secrets","suite":"mtls","planted":1,"forms":2,"texts":3,"bytes":4,"found":0}
RELIABILITY {"name":"fuzz","targets":20,"seconds":20,"executions":1000}
RELIABILITY {"name":"mutants","part":"all","seed":1,"tried":3,"of":9,"killed":1,"survived":2,` +
	`"not_compiling":0,"percent":33,"survivors":"a.go:1: x; b.go:2: y"}`

// Figures come out as they were told, in the table of their name.
func TestPage(t *testing.T) {
	found, err := read(strings.NewReader(printed))
	require.NoError(t, err)
	require.Len(t, found, 8)
	text, err := page(found)
	require.NoError(t, err)
	require.Contains(t, text, "| faults | cells | deviations |\n|---|---|---|\n| 80 | 1500 | 0 |\n")
	require.Contains(t, text, "| 60 | 9007199254740993 | 1 | 2 | 3 | 4 | 5 | 0 |\n")
	require.Contains(t, text, "| linux | 2000 | 2000 |\n| linux, minting | 10 | 10 |\n")
	require.Contains(t, text, "- a.go:1: x\n- b.go:2: y\n")
}

// What nobody measured is no page.
func TestPageWithoutAReport(t *testing.T) {
	for _, s := range sections {
		var lines []string
		for line := range strings.Lines(printed) {
			if !strings.Contains(line, `"name":"`+s.name+`"`) {
				lines = append(lines, line)
			}
		}
		found, err := read(strings.NewReader(strings.Join(lines, "")))
		require.NoError(t, err)
		_, err = page(found)
		require.ErrorContains(t, err, s.name)
	}
	_, err := read(strings.NewReader("RELIABILITY {half"))
	require.Error(t, err)
	_, err = page([]report{{"name": "matrix", "cells": 1}})
	require.ErrorContains(t, err, "faults")
}
