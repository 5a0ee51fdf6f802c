// Command benchtable runs the benchmarks of the module and makes BENCHMARKS.md of what they report: the table of
// rows.go, in the text of BENCHMARKS.md.tmpl. A goal that is missed is shown, and is no error: it may be the machine
// that was busy.
package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"text/template"
)

const (
	output = "BENCHMARKS.md"
	// roundsFor is how long each benchmark goes on. There are about 25.
	roundsFor = "10s"
)

//go:embed BENCHMARKS.md.tmpl
var text string

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal("benchtable: ", err)
	}
}

func run() error {
	results, cpu, err := benchmarks()
	if err != nil {
		return err
	}
	rows, err := table(results)
	if err != nil {
		return err
	}
	versions, err := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Version}}",
		"github.com/Azure/azure-sdk-for-go/sdk/azidentity", "github.com/Azure/azure-sdk-for-go/sdk/azcore").Output()
	if err != nil {
		return fmt.Errorf("asking for the versions of modules: %w", err)
	}
	t, err := template.New(output).Parse(text)
	if err != nil {
		return err
	}
	var page bytes.Buffer
	if err := t.Execute(&page, map[string]any{
		"Table":    rows,
		"CPU":      cpu,
		"Cores":    runtime.NumCPU(),
		"OS":       system(),
		"Go":       runtime.Version(),
		"Versions": strings.Split(strings.TrimSpace(string(versions)), "\n"),
	}); err != nil {
		return err
	}
	return os.WriteFile(output, page.Bytes(), 0o644)
}

// benchmarks runs the benchmarks, shows what they print and returns it.
func benchmarks() (results map[string]metrics, cpu string, err error) {
	cmd := exec.Command("go", "test", "-p", "1", "-run", "^$", "-bench", ".", "-benchtime", roundsFor,
		"-timeout", "20m", ".", "./tpmstore")
	cmd.Env = append(os.Environ(), "AZMTLS_REAL_PARTS=1") // no row without its TPM
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	results, cpu, err = read(io.TeeReader(stdout, os.Stderr))
	if ended := cmd.Wait(); ended != nil {
		return nil, "", fmt.Errorf("the benchmarks failed: %w", ended)
	}
	return results, cpu, err
}

// metrics are what a benchmark reported, by unit.
type metrics map[string]float64

// read reads what go test prints (golang.org/design/14313-benchmark-format).
func read(r io.Reader) (results map[string]metrics, cpu string, err error) {
	results = map[string]metrics{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if model, ok := strings.CutPrefix(lines.Text(), "cpu: "); ok {
			cpu = model
		}
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(fields[0], "Benchmark"), fmt.Sprintf("-%d", runtime.GOMAXPROCS(0)))
		results[name] = metrics{}
		for i := 2; i+1 < len(fields); i += 2 {
			if results[name][fields[i+1]], err = strconv.ParseFloat(fields[i], 64); err != nil {
				return nil, "", fmt.Errorf("%q: %w", lines.Text(), err)
			}
		}
	}
	return results, cpu, lines.Err()
}

// system returns the operating system and its architecture; on Linux the distribution too.
func system() string {
	release, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(release)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return fmt.Sprintf("%s, %s/%s", strings.Trim(strings.TrimSpace(name), `"`), runtime.GOOS, runtime.GOARCH)
		}
	}
	return runtime.GOOS + "/" + runtime.GOARCH
}
