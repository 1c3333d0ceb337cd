package master

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func hostOrder(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

func (d *Daemon) proc(name string) string { return fmt.Sprintf("/proc/%d/%s", d.PID, name) }

// FDCount counts the daemon's open descriptors.
func (d *Daemon) FDCount() (int, error) {
	dir, err := os.Open(d.proc("fd"))
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	return len(names), err
}

// RSS is the daemon's resident memory in bytes.
func (d *Daemon) RSS() (int64, error) {
	text, err := os.ReadFile(d.proc("statm"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("master: odd statm %q", text)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// CPU is the processor time that the daemon has used.
func (d *Daemon) CPU() (time.Duration, error) {
	text, err := os.ReadFile(d.proc("stat"))
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses and may hold anything.
	_, rest, ok := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("master: odd stat %q", text)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const perTick = time.Second / 100 // USER_HZ, the same on all Linux systems
	return time.Duration(ticks) * perTick, nil
}

// Credentials returns the daemon's effective user and group, and its root and
// working directories.
func (d *Daemon) Credentials() (uid, gid int, root, cwd string, err error) {
	text, err := os.ReadFile(d.proc("status"))
	if err != nil {
		return 0, 0, "", "", err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 3:
		case fields[0] == "Uid:":
			uid, _ = strconv.Atoi(fields[2])
		case fields[0] == "Gid:":
			gid, _ = strconv.Atoi(fields[2])
		}
	}
	if root, err = os.Readlink(d.proc("root")); err == nil {
		cwd, err = os.Readlink(d.proc("cwd"))
	}
	return uid, gid, root, cwd, err
}
