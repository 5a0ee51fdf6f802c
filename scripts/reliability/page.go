package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// report is what a test told: its name and its figures.
type report map[string]any

// section is a table of the reports of one name.
type section struct {
	name, title, text string
	columns           []string
}

var sections = []section{
	{"matrix", "Fault matrix", "Every fault on every kind of connection and request: `docs/evidence.md`.",
		[]string{"faults", "cells", "deviations"}},
	{"soak", "Soak", "Goroutines, clients and clocks under random faults; the seed repeats it.",
		[]string{"seconds", "seed", "calls", "faults", "mints", "evictions", "recoveries", "wrong"}},
	{"crash", "Crashes", "Processes killed with SIGKILL; a survived one left nothing that the next had to be helped with.",
		[]string{"system", "kills", "survived"}},
	{"model", "Model", "Made-up sequences of operations, compared with a reference model.",
		[]string{"sequences", "steps", "seed"}},
	{"secrets", "Secrets", "What the tests emit is searched for what was planted, in every form of it.",
		[]string{"suite", "planted", "forms", "texts", "bytes", "found"}},
	{"fuzz", "Fuzzing", "Executions of all fuzz targets.", []string{"targets", "seconds", "executions"}},
	{"mutants", "Mutation",
		"Changes in one place that tests noticed, or did not. Tests that take minutes are not asked: what only they " +
			"would notice is among the survivors, as are changes that make the same program.",
		[]string{"part", "seed", "of", "tried", "not_compiling", "survived", "killed", "percent"}},
}

// read finds the reports in what tests printed.
func read(printed io.Reader) (found []report, err error) {
	lines := bufio.NewReader(printed)
	for {
		line, end := lines.ReadString('\n')
		if _, text, ok := strings.Cut(line, "RELIABILITY {"); ok {
			var r report
			decoder := json.NewDecoder(strings.NewReader("{" + text))
			decoder.UseNumber() // they are shown as they were written
			if err := decoder.Decode(&r); err != nil {
				return nil, fmt.Errorf("reading %q: %w", line, err)
			}
			found = append(found, r)
		}
		if end == io.EOF {
			return found, nil
		}
		if end != nil {
			return nil, end
		}
	}
}

// page writes the tables. A section without a report, or a report without a figure, is an error.
func page(found []report) (string, error) {
	var b strings.Builder
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| %s |\n|%s\n", s.title, s.text,
			strings.ReplaceAll(strings.Join(s.columns, " | "), "_", " "), strings.Repeat("---|", len(s.columns)))
		rows, survivors := 0, ""
		for _, r := range found {
			if r["name"] != s.name {
				continue
			}
			rows++
			for _, column := range s.columns {
				value, ok := r[column]
				if !ok {
					return "", fmt.Errorf("a report of %s has no %q: %v", s.name, column, r)
				}
				fmt.Fprintf(&b, "| %v ", value)
			}
			b.WriteString("|\n")
			if text, _ := r["survivors"].(string); text != "" {
				survivors = "\nSurvivors:\n\n- " + strings.ReplaceAll(text, "; ", "\n- ") + "\n"
			}
		}
		if rows == 0 {
			return "", fmt.Errorf("nothing was told about %s", s.name)
		}
		b.WriteString(survivors)
	}
	return b.String(), nil
}
