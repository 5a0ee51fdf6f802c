// Package swtpm runs swtpm, a TPM 2.0 in software, for tests and examples: https://github.com/stefanberger/swtpm.
package swtpm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// TPM is a running swtpm. It speaks on a unix socket.
type TPM struct {
	// Socket is the path of its socket. A new process behind it makes it anew.
	Socket string

	dir  string
	cmd  *exec.Cmd
	done chan struct{}
}

// Available returns why swtpm cannot be run; nil if it can.
func Available() error {
	if _, err := exec.LookPath("swtpm"); err != nil {
		return fmt.Errorf("%w: apt-get install swtpm, or make test, installs it", err)
	}
	return nil
}

// Start runs a TPM whose state lies in a folder. What a TPM before it left there it goes on with, as after a reboot.
// The path of the folder must be short: a unix socket has room for 107 bytes.
func Start(dir string) (*TPM, error) {
	t := &TPM{Socket: filepath.Join(dir, "sock"), dir: dir}
	return t, t.Start()
}

// Start runs the TPM again after Stop.
func (t *TPM) Start() error {
	state := filepath.Join(t.dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	return t.run("--server", "type=unixio,path="+t.Socket, "--ctrl", "type=unixio,path="+t.Socket+".ctrl")
}

// StartTCP runs it on a port of loopback, as clients in C want it, and on the next one, its control channel.
func (t *TPM) StartTCP(port int) error {
	return t.run(
		"--server", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", port),
		"--ctrl", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", port+1),
	)
}

func (t *TPM) run(where ...string) error {
	t.cmd = exec.Command("swtpm", append([]string{
		"socket", "--tpm2", "--tpmstate", "dir=" + filepath.Join(t.dir, "state"), "--flags", "not-need-init,startup-clear",
	}, where...)...)
	if err := t.cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	t.done = done
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(done)
	}(t.cmd)
	return t.await(where[1])
}

// await waits until it answers.
func (t *TPM) await(server string) error {
	network, address := "unix", t.Socket
	var port int
	if _, err := fmt.Sscanf(server, "type=tcp,port=%d", &port); err == nil {
		network, address = "tcp", fmt.Sprintf("127.0.0.1:%d", port)
	}
	limit := time.After(30 * time.Second)
	for {
		if c, err := net.Dial(network, address); err == nil {
			return c.Close()
		}
		select {
		case <-t.done:
			return errors.New("swtpm ended at once")
		case <-limit:
			t.Stop()
			return errors.New("swtpm does not answer")
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Stop kills it, as a power failure would.
func (t *TPM) Stop() {
	_ = t.cmd.Process.Kill()
	<-t.done
	_ = os.Remove(t.Socket)
	_ = os.Remove(t.Socket + ".ctrl")
}

// Wipe makes another TPM of it: nothing that it wrapped can be loaded any more.
func (t *TPM) Wipe() error {
	t.Stop()
	if err := os.RemoveAll(filepath.Join(t.dir, "state")); err != nil {
		return err
	}
	return t.Start()
}
