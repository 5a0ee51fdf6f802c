// Command vulnerable reads what govulncheck -format json says, and fails if the code calls something of a module that
// is known to be vulnerable. The standard library is that of whoever builds: it is told of, and is no failure.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"slices"
)

func main() {
	log.SetFlags(0)
	called, err := read(os.Stdin)
	if err != nil {
		log.Fatal("vulnerable: ", err)
	}
	failed := false
	for _, id := range slices.Sorted(maps.Keys(called)) {
		f := called[id]
		fmt.Printf("%s: %s %s, fixed in %s\n", id, f.module, f.version, f.fixed)
		failed = failed || f.module != standardLibrary
	}
	if failed {
		log.Fatal("vulnerable: the code calls what is known to be vulnerable")
	}
}

const standardLibrary = "stdlib"

// found is a vulnerability whose code is called.
type found struct{ module, version, fixed string }

// read reads a stream of govulncheck's messages
// (https://pkg.go.dev/golang.org/x/vuln/internal/govulncheck#Message). A finding whose trace names a function is
// called.
func read(r io.Reader) (map[string]found, error) {
	called := map[string]found{}
	scanned := false
	for decoder := json.NewDecoder(r); ; {
		var message struct {
			SBOM    *struct{} `json:"SBOM"`
			Finding *struct {
				OSV   string `json:"osv"`
				Fixed string `json:"fixed_version"`
				Trace []struct {
					Module   string `json:"module"`
					Version  string `json:"version"`
					Function string `json:"function"`
				} `json:"trace"`
			} `json:"finding"`
		}
		err := decoder.Decode(&message)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading what govulncheck says: %w", err)
		}
		scanned = scanned || message.SBOM != nil
		if f := message.Finding; f != nil && len(f.Trace) > 0 && f.Trace[0].Function != "" {
			called[f.OSV] = found{f.Trace[0].Module, f.Trace[0].Version, f.Fixed}
		}
	}
	if !scanned {
		return nil, errors.New("govulncheck has looked at nothing")
	}
	return called, nil
}
