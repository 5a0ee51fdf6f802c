// Command mutate changes the library in one place at a time and looks whether a test fails: a change that no test
// notices, a survivor, is either the same program in other words or a test that is missing. A seed makes the same
// choice of changes again.
//
// Only what is built on this system is mutated: of winstore that is what it has in common with other systems. Packages
// that only tests use are left out.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	module = "github.com/azmtls/azmtls"
	// longest is how long the tests of a package may take without any change.
	longest = 10 * time.Minute
	// skipped are tests that take minutes. What they alone would kill counts as a survivor.
	skipped = "Matrix|HourOfFaults|Fleet|Soak|Model|Kill|Processes|HostileEntra|EveryBinding|CostIsFlat"
)

// helpers are packages that only tests use.
var helpers = []string{"/internal/compare", "/internal/secrets", "/internal/swtpm"}

// Fates of a mutant.
const (
	killed       = "killed"
	survived     = "survived"
	notCompiling = "not compiling"
)

func main() {
	log.SetFlags(0)
	seed := flag.Uint64("seed", 1, "the choice of mutants")
	n := flag.Int("n", 12, "how many mutants to try")
	own := flag.Bool("own", false, "ask only the tests of the mutated package, not those of the module's root")
	flag.Parse()
	if err := run(*seed, *n, *own, flag.Args()); err != nil {
		log.Fatal("mutate: ", err)
	}
}

func run(seed uint64, n int, own bool, patterns []string) error {
	if len(patterns) == 0 {
		patterns = []string{".", "./mtls", "./tpmstore", "./winstore", "./internal/..."}
	}
	all, err := mutants(patterns)
	if err != nil {
		return err
	}
	chosen := sample(all, seed, n)
	if len(chosen) == 0 {
		return errors.New("there is nothing to mutate")
	}
	// Without this, tests that fail anyway would kill every mutant.
	limits := map[string]time.Duration{}
	for _, m := range chosen {
		limits[m.pkg] = 0
	}
	if !own {
		limits[module] = 0
	}
	for _, pkg := range slices.Sorted(maps.Keys(limits)) {
		begin := time.Now()
		if output, err := test(pkg, "", longest); err != nil {
			return fmt.Errorf("the tests of %s fail without any change: %w\n%s", pkg, err, output[:min(len(output), 4000)])
		}
		// A mutant that never ends is killed by its limit; one that shares the processors must not be.
		limits[pkg] = 4*time.Since(begin) + 30*time.Second
	}
	fates, err := try(chosen, limits)
	if err != nil {
		return err
	}
	log.Print("seed ", seed)
	return report(seed, all, chosen, fates)
}

// mutants are all that can be made of the packages.
func mutants(patterns []string) (all []mutant, err error) {
	format := `{{$p := .}}{{range .GoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}`
	listed, err := exec.Command("go", append([]string{"list", "-f", format}, patterns...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("listing the files: %w", err)
	}
	for line := range strings.Lines(string(listed)) {
		pkg, file, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || slices.ContainsFunc(helpers, func(h string) bool { return pkg == module+h }) {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		found, err := mutantsOf(pkg, file, source)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// sample chooses n of them.
func sample(all []mutant, seed uint64, n int) []mutant {
	chosen := slices.Clone(all)
	random := rand.New(rand.NewPCG(seed, 0))
	random.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	return chosen[:min(n, len(chosen))]
}

func (m mutant) apply(source []byte) []byte {
	// A change over several lines leaves as many.
	lines := bytes.Count(source[m.start:m.end], []byte("\n")) - strings.Count(m.text, "\n")
	return slices.Concat(source[:m.start], []byte(m.text+strings.Repeat("\n", lines)), source[m.end:])
}

// try finds what becomes of each, as many at once as there are processors.
func try(chosen []mutant, limits map[string]time.Duration) ([]string, error) {
	folder, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	fates, failures := make([]string, len(chosen)), make([]error, len(chosen))
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for i := range next {
				fates[i], failures[i] = chosen[i].fate(filepath.Join(folder, fmt.Sprint(i)), limits)
				if fates[i] == survived {
					log.Print("survived: ", chosen[i])
				}
			}
		})
	}
	for i := range chosen {
		next <- i
	}
	close(next)
	workers.Wait()
	return fates, errors.Join(failures...)
}

// fate runs the tests of the package, and those of the module's root when they notice nothing. Packages without a limit
// are not asked.
func (m mutant) fate(path string, limits map[string]time.Duration) (string, error) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path+".go", m.apply(source), 0o600); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{m.file: path + ".go"}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path+".json", overlay, 0o600); err != nil {
		return "", err
	}
	for _, pkg := range slices.Compact([]string{m.pkg, module}) {
		limit, asked := limits[pkg]
		if !asked {
			continue
		}
		output, err := test(pkg, path+".json", limit)
		var exit *exec.ExitError
		switch {
		case err == nil:
		case bytes.Contains(output, []byte("[build failed]")):
			return notCompiling, nil
		case errors.As(err, &exit):
			return killed, nil
		default:
			return "", fmt.Errorf("running the tests of %s: %w", pkg, err)
		}
	}
	return survived, nil
}

// test runs the tests of a package.
func test(pkg, overlay string, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit+time.Minute) // the build included
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-vet=off", "-count=1", "-failfast",
		"-timeout", limit.String(), "-skip", skipped, "-overlay", overlay, pkg)
	cmd.WaitDelay = 10 * time.Second // of children that hold its output
	return cmd.CombinedOutput()
}

// tally is what became of the mutants of a part of the library. scripts/reliability reads its JSON.
type tally struct {
	Name         string `json:"name"`
	Part         string `json:"part"`
	Seed         uint64 `json:"seed"`
	Of           int    `json:"of"`
	Tried        int    `json:"tried"`
	Killed       int    `json:"killed"`
	Survived     int    `json:"survived"`
	NotCompiling int    `json:"not_compiling"`
	Percent      int    `json:"percent"` // killed, of those that compile
	Survivors    string `json:"survivors,omitempty"`
}

func (t *tally) add(fate string) {
	t.Tried++
	switch fate {
	case killed:
		t.Killed++
	case survived:
		t.Survived++
	default:
		t.NotCompiling++
	}
	t.Percent = 100 * t.Killed / max(1, t.Killed+t.Survived)
}

// part is the package, all below internal taken together.
func (m mutant) part() string {
	switch path := strings.TrimPrefix(m.pkg, module); {
	case path == "":
		return "root"
	case strings.HasPrefix(path, "/internal/"):
		return "internal"
	default:
		return path[1:]
	}
}

// report tells what became of the mutants, by part and of all of them.
func report(seed uint64, all, chosen []mutant, fates []string) error {
	total := &tally{Name: "mutants", Part: "all", Seed: seed, Of: len(all)}
	parts := map[string]*tally{}
	for _, m := range all {
		if parts[m.part()] == nil {
			parts[m.part()] = &tally{Name: "mutants", Part: m.part(), Seed: seed}
		}
		parts[m.part()].Of++
	}
	var survivors []string
	for i, m := range chosen {
		total.add(fates[i])
		parts[m.part()].add(fates[i])
		if fates[i] == survived {
			survivors = append(survivors, m.String())
		}
	}
	slices.Sort(survivors)
	total.Survivors = strings.Join(survivors, "; ")
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		if err := parts[name].print(); err != nil {
			return err
		}
	}
	return total.print()
}

func (t *tally) print() error {
	if os.Getenv("AZMTLS_RELIABILITY") != "1" {
		fmt.Printf("%-10s %4d of %4d tried: %4d killed (%d %%), %d survived, %d not compiling\n",
			t.Part, t.Tried, t.Of, t.Killed, t.Percent, t.Survived, t.NotCompiling)
		return nil
	}
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	fmt.Printf("RELIABILITY %s\n", line)
	return nil
}

func (m mutant) String() string { return fmt.Sprintf("%s:%d: %s", relative(m.file), m.line, m.what) }

// relative is a path as seen from here.
func relative(file string) string {
	here, err := os.Getwd()
	if err != nil {
		return file
	}
	if path, err := filepath.Rel(here, file); err == nil {
		return path
	}
	return file
}
