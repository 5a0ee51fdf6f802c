// Command reliability runs what shows that the library holds (the matrix of faults, the soak, kills, the model, the
// search for secrets, fuzzing, mutation) and makes RELIABILITY.md of what they report: the lines
// "RELIABILITY {flat JSON}" that they write where AZMTLS_RELIABILITY=1. When one of them fails, or reports nothing,
// there is no file.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"runtime"
)

const output = "RELIABILITY.md"

func main() {
	log.SetFlags(0)
	soak := flag.Duration("soak", 0, "how long the soak lasts, such as 30m")
	fuzz := flag.Duration("fuzz", 0, "how long all fuzz targets together run, such as 1h")
	mutants := flag.Int("mutants", 0, "how many mutants to try")
	seed := flag.Uint64("seed", 1, "the choice of mutants")
	flag.Parse()
	if *soak <= 0 || *fuzz <= 0 || *mutants <= 0 {
		log.Fatal("reliability: -soak, -fuzz and -mutants are needed")
	}
	here, err := os.Getwd()
	if err != nil {
		log.Fatal("reliability: ", err)
	}
	commands := [][]string{
		{"go", "test", "-v", "-count=1", "-timeout", "30m", "-skip", "^TestSoak$", ".", "./mtls", "./tpmstore"},
		{"env", "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0", "GOTMPDIR=" + here + "/.tools/windows/tmp",
			"go", "test", "-v", "-count=1", "-timeout", "30m", "-exec", here + "/scripts/wine.sh", "./winstore"},
		{"env", "AZMTLS_SOAK=" + soak.String(), "go", "test", "-v", "-race", "-count=1",
			"-timeout", (2 * *soak).String(), "-run", "^TestSoak$", "."},
		{"scripts/fuzz.sh", "all", fmt.Sprintf("%.0f", fuzz.Seconds())},
		{"go", "run", "./scripts/mutate", "-n", fmt.Sprint(*mutants), "-seed", fmt.Sprint(*seed)},
	}
	if err := run(commands); err != nil {
		log.Fatal("reliability: ", err)
	}
}

func run(commands [][]string) error {
	var found []report
	for _, command := range commands {
		log.Print(command)
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Env = append(os.Environ(), "AZMTLS_RELIABILITY=1", "AZMTLS_REAL_PARTS=1")
		var printed bytes.Buffer
		cmd.Stdout, cmd.Stderr = &printed, io.MultiWriter(&printed, os.Stderr)
		if err := cmd.Run(); err != nil {
			// The matrix is megabytes; what failed is at the end.
			tail := printed.Bytes()
			return fmt.Errorf("%v: %w\n%s", command, err, tail[max(0, len(tail)-8000):])
		}
		reports, err := read(&printed)
		if err != nil {
			return err
		}
		found = append(found, reports...)
	}
	text, err := page(found)
	if err != nil {
		return err
	}
	head := fmt.Sprintf("# Reliability\n\n`make reliability` measures this anew and writes this file. "+
		"%s, %s/%s, %d CPUs.\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	return os.WriteFile(output, []byte(head+text), 0o644)
}
