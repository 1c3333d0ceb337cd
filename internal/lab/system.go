package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// system is what the lab takes from the Postfix installed on the machine.
// It is asked for the built-in defaults, so no main.cf is needed, and the
// machine's own is not looked at.
type system struct {
	commandDir, daemonDir, metaDir string
	version                        string
	owner                          string
	uid, gid                       int
}

// ErrNotInstalled says that there is no Postfix to build a lab from.
var ErrNotInstalled = errors.New("lab: Postfix is not installed on this machine")

func inspect() (system, error) {
	// PATH may lack sbin.
	out, err := exec.Command("/usr/sbin/postconf", "-dh",
		"command_directory", "daemon_directory", "meta_directory", "mail_version", "mail_owner").Output()
	if err != nil {
		return system{}, fmt.Errorf("%w: %w", ErrNotInstalled, err)
	}
	values := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(values) != 5 {
		return system{}, fmt.Errorf("lab: postconf said %q", out)
	}
	s := system{commandDir: values[0], daemonDir: values[1], metaDir: values[2], version: values[3], owner: values[4]}
	owner, err := user.Lookup(s.owner)
	if err != nil {
		return system{}, fmt.Errorf("lab: %w", err)
	}
	if s.uid, err = strconv.Atoi(owner.Uid); err != nil {
		return system{}, err
	}
	s.gid, err = strconv.Atoi(owner.Gid)
	return s, err
}

// PostfixVersion is that of the Postfix a lab is built from.
func PostfixVersion() (string, error) {
	s, err := inspect()
	return s.version, err
}

// StockScache names the scache that Postfix came with, also where ours has taken
// its place with dpkg-divert(1). A Go program in that place is an error: ours must
// not be compared with itself.
func StockScache() (string, error) {
	s, err := inspect()
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.daemonDir, "scache")
	if out, err := exec.Command("dpkg-divert", "--truename", path).Output(); err == nil {
		path = strings.TrimSpace(string(out))
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotInstalled, err)
	}
	if IsGo(path) {
		return "", fmt.Errorf("lab: %s is not Postfix's own scache: it is written in Go", path)
	}
	return path, nil
}
