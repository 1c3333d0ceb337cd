package deb_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker tells the test that runs in the namespace from the one outside.
const marker = "SCACHE_DEB_NAMESPACE"

// skipped says loudly what is not tested here: `make test` shows it.
func skipped(what string, why error) {
	fmt.Fprintf(os.Stderr, "\nSKIPPED: %s: %v\n\n", what, why)
}

func inNamespace() bool { return os.Getenv(marker) != "" }

var errCannot = errors.New("no overlays here")

// cannot is the exit status that says so.
const cannot = 77

// enterNamespace runs this test again, as the first process of its own mount and PID
// namespaces: its end is the end of all it has started. It returns the exit status.
func enterNamespace() int {
	if _, err := exec.LookPath("dpkg"); err != nil || os.Geteuid() != 0 {
		skipped("the Debian package", errors.New("only root on Debian can install it"))
		return 0
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		skipped("the Debian package", fmt.Errorf("no namespaces here: %w", err))
		return 0
	}
	if status := cmd.ProcessState.ExitCode(); status != cannot {
		return status
	}
	return 0
}

// cleanMachine makes of the namespace a machine where everything can be changed
// and nothing else runs.
func cleanMachine() error {
	resolver, _ := os.ReadFile("/etc/resolv.conf") // may be a link into /run
	if err := mountOverlays(); err != nil {
		return fmt.Errorf("%w: %w", errCannot, err)
	}
	os.Remove("/etc/resolv.conf")
	if err := os.WriteFile("/etc/resolv.conf", resolver, 0o644); err != nil {
		return err
	}
	// The index of manual pages takes half of dpkg's time, and shows nothing here.
	os.Remove("/var/lib/man-db/auto-update")
	// Maintainer scripts start nothing.
	policy := "/usr/sbin/policy-rc.d"
	os.Remove(policy)
	return os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755)
}

// mountOverlays hides /run as well: with the sockets in it dpkg would have the
// machine's own systemd reload and restart. What is changed is kept there.
func mountOverlays() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot mount: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("cannot mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("cannot mount /run: %w", err)
	}
	for _, dir := range []string{"/usr", "/etc", "/var"} {
		upper, work := filepath.Join("/run/upper", dir), filepath.Join("/run/work", dir)
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)
		if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
			return fmt.Errorf("cannot mount an overlay over %s: %w", dir, err)
		}
	}
	return nil
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
