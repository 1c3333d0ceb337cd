package deb_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// marker tells the test that runs in the namespace from the one outside.
const marker = "SCACHE_DEB_NAMESPACE"

// skipped says loudly what is not tested here: `make test` shows it.
func skipped(what string, why error) {
	fmt.Fprintf(os.Stderr, "\nSKIPPED: %s: %v\n\n", what, why)
}

func inNamespace() bool { return os.Getenv(marker) != "" }

// enterNamespace runs this test again on a clean machine, and returns the exit status.
func enterNamespace() int {
	if _, err := exec.LookPath("dpkg"); err != nil || os.Geteuid() != 0 {
		skipped("the Debian package", errors.New("only root on Debian can install it"))
		return 0
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command("../../scripts/on-clean-machine", append([]string{self}, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	const cannot = 77 // what the script says
	switch err := cmd.Run(); {
	case cmd.ProcessState == nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	case cmd.ProcessState.ExitCode() == cannot:
		skipped("the Debian package", errors.New("no clean machine here"))
		return 0
	}
	return cmd.ProcessState.ExitCode()
}

// download fetches the postfix package of the version that is installed.
func download(dir string) (path string, err error) {
	version, err := command("dpkg-query", "-W", "-f", "${Version}", "postfix")
	if err != nil {
		return "", err
	}
	fetch := func() error {
		_, err := command("sh", "-c", `cd "$1" && apt-get download -qq "postfix=$2"`, "sh", dir, version)
		return err
	}
	if fetch() != nil { // the lists may be old
		if _, err := command("apt-get", "update", "-qq"); err != nil {
			return "", err
		}
		if err := fetch(); err != nil {
			return "", err
		}
	}
	found, err := filepath.Glob(filepath.Join(dir, "postfix_*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("downloaded %q: %w", found, err)
	}
	return found[0], nil
}
