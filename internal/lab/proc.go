package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Process is one of the instance's daemons.
type Process struct {
	PID, Parent int
	Program     string // base name of what it executes
}

// Processes lists the daemons of this instance, known by the directory of what they
// execute, which may have been replaced since. Zombies execute nothing, and do not count.
func (l *Lab) Processes() []Process {
	return processes(func(exe string, _ int) bool { return filepath.Dir(exe) == l.sbin })
}

// Children lists what a process has started, in containers, too.
func Children(pid int) []Process {
	return processes(func(_ string, parent int) bool { return parent == pid })
}

func processes(wanted func(exe string, parent int) bool) (found []Process) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if parent, ok := parentOf(pid); ok && wanted(exe, parent) {
			found = append(found, Process{pid, parent, strings.TrimSuffix(filepath.Base(exe), " (deleted)")})
		}
	}
	return found
}

// parentOf reads the fourth field of /proc/PID/stat; the second may hold blanks.
func parentOf(pid int) (int, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return parent, err == nil
}

// MasterPID finds master(8): the one whose parent is none of ours.
func (l *Lab) MasterPID() (int, bool) {
	own := l.Processes()
	isOwn := func(pid int) bool {
		return slices.ContainsFunc(own, func(p Process) bool { return p.PID == pid })
	}
	for _, p := range own {
		if p.Program == "master" && !isOwn(p.Parent) {
			return p.PID, true
		}
	}
	return 0, false
}

// ScachePID finds the cache that master(8) runs at the moment, if any.
func (l *Lab) ScachePID() (int, bool) {
	master, ok := l.MasterPID()
	if !ok {
		return 0, false
	}
	for _, p := range l.Processes() {
		if p.Program == "scache" && p.Parent == master {
			return p.PID, true
		}
	}
	return 0, false
}

// Sockets counts the sockets that a process has open.
func Sockets(pid int) (n int) {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if target, _ := os.Readlink(fd); strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// Identity is under what rights a process runs.
type Identity struct {
	Root string  // its root directory
	UIDs [][]int // of each thread: real, effective, saved, file system
}

// IdentityOf reads a process's identity, thread by thread: on Linux each
// has its own, and a setuid that missed one would be a hole.
func IdentityOf(pid int) (Identity, error) {
	root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return Identity{}, err
	}
	id := Identity{Root: root}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, file := range threads {
		status, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		id.UIDs = append(id.UIDs, parseUIDs(string(status)))
	}
	return id, nil
}

func parseUIDs(status string) (uids []int) {
	_, rest, _ := strings.Cut(status, "\nUid:")
	line, _, _ := strings.Cut(rest, "\n")
	for field := range strings.FieldsSeq(line) {
		uid, _ := strconv.Atoi(field)
		uids = append(uids, uid)
	}
	return uids
}

// Stop stops a process by SIGSTOP, and returns when all its threads stand still: the signal takes a
// moment.
func Stop(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	return Poll(ctx, func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, thread := range threads {
			if status, err := os.ReadFile(thread); err == nil && !bytes.Contains(status, []byte("\nState:\tT")) {
				return false
			}
		}
		return len(threads) > 0
	})
}

// OwnerUID is mail_owner's.
func (l *Lab) OwnerUID() int { return l.sys.uid }

// QueueDir is the instance's queue directory, and the jail.
func (l *Lab) QueueDir() string { return l.path("queue") }

// ConfigDir is where the instance's main.cf and master.cf are.
func (l *Lab) ConfigDir() string { return l.path("etc") }
