package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/client"
	"github.com/scache/scache/internal/lab"
	"github.com/scache/scache/internal/manager"
	"github.com/scache/scache/proto"
)

// hangUp sends SIGHUP to the process that serves, and returns the one that serves then.
func hangUp(t *testing.T, s *manager.Service, pid int) (next int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	wantNext(t, s, "RELOADING", "1")
	for {
		said, err := s.Next(patience)
		if err != nil {
			t.Fatalf("no successor: %v", err)
		}
		if text, ok := said["MAINPID"]; ok {
			next, err := strconv.Atoi(text)
			if err != nil || next == pid || said["READY"] != "1" {
				t.Fatalf("said %v", said)
			}
			t.Cleanup(func() { unix.Kill(next, unix.SIGKILL) })
			return next
		}
	}
}

// copyFile makes a program's file anew, so that a process that runs the old one is not disturbed.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", content, 0o755)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// At SIGHUP the file of the program is started again and takes over: sockets of either kind,
// clients, connections, counters. A file that does not work harms nobody.
func TestHangUpReplacesTheProcess(t *testing.T) {
	dir := t.TempDir()
	file, own, passed := filepath.Join(dir, "scache"), filepath.Join(dir, "own"), filepath.Join(dir, "passed")
	copyFile(t, binary, file)
	s, err := manager.Start(manager.Config{
		Binary:    file,
		Arguments: []string{"-socket", own, "-ttl-limit", "1h"},
		Sockets:   []manager.Socket{{Path: passed, Name: "x"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	wantNext(t, s, "READY", "1")
	clients := map[string]*client.Client{own: dial(t, own), passed: dial(t, passed)}
	pid := s.PID()
	for generation := range 4 {
		name := fmt.Sprint(generation)
		for path, c := range clients {
			saveNull(t, c, name+path)
		}
		pid = hangUp(t, s, pid)
		for path, c := range clients {
			if !finds(t, c, name+path) {
				t.Errorf("not found by %s after %d times", path, generation+1)
			}
			if finds(t, c, name+path) {
				t.Errorf("found twice by %s", path)
			}
			finds(t, dial(t, path), name) // it takes new clients
		}
	}

	// What cannot be started, what ends at once, what does not know how, and what works again.
	for _, content := range []string{"no program", "#!/bin/sh\nexit 3\n"} {
		if err := os.WriteFile(file+".new", []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		saveNull(t, clients[own], content)
		if err := unix.Kill(pid, unix.SIGHUP); err != nil {
			t.Fatal(err)
		}
		wantNext(t, s, "RELOADING", "1")
		wantNext(t, s, "READY", "1")
		if !finds(t, clients[own], content) {
			t.Errorf("not found after %q", content)
		}
	}
	copyFile(t, binary, file)
	pid = hangUp(t, s, pid)

	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	status, log, err := s.Wait()
	if status != 0 || err != nil {
		t.Errorf("exit status %d, %v", status, err)
	}
	for _, want := range []string{
		"has taken over: connections=2 bindings=0 clients=2 within",
		"no successor: fork/exec " + file + ": exec format error",
		"no successor: " + file + " has ended: exit status 3",
		own + ": statistics: address lookup hits=6 miss=8 success=42%", // of all the processes
		"x: statistics: address lookup hits=4 miss=8 success=33%",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log:\n%s", want, log)
		}
	}
	for path, want := range map[string]bool{own: false, passed: true} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// The server before may see connections off still: its successor leaves no socket behind all the same.
func TestSuccessorEndsFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own")
	s := startService(t, manager.Config{Arguments: []string{"-socket", path, "-ttl-limit", "1h", "-close-handshake", "quit"}})
	wantNext(t, s, "READY", "1")
	near, far, err := lab.TCPPair()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if err := dial(t, path).SaveEndpoint(t.Context(), time.Second, "silent", "", near); err != nil {
		t.Fatal(err)
	}
	near.Close()
	far.SetDeadline(time.Now().Add(patience))
	if line, err := bufio.NewReader(far).ReadString('\n'); line != "QUIT\r\n" { // and no reply
		t.Fatalf("%q, %v", line, err)
	}
	pid := hangUp(t, s, s.PID())
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status, log, err := s.Wait(); status != 0 || err != nil {
		t.Errorf("exit status %d, %v, log %q", status, err, log)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("%s is there still: %v", path, err)
	}
}

// A server that is started by somebody else takes over as well, and may have more sockets.
func TestTakeOverBySocket(t *testing.T) {
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	first := startServe(t, a, "-socket", b, "-ttl-limit", "1h", "-takeover") // from nobody
	clients := map[string]*client.Client{a: dial(t, a), b: dial(t, b)}
	for path, c := range clients {
		saveNull(t, c, path)
	}
	second := startServe(t, a, "-socket", b, "-socket", c, "-ttl-limit", "1h", "-takeover")
	rest, _ := io.ReadAll(first.log)
	if err := first.cmd.Wait(); err != nil || strings.Contains(string(rest), "statistics:") {
		t.Errorf("%v, log %q: the counters are the other's", err, rest)
	}
	for path, c := range clients {
		if !finds(t, c, path) {
			t.Errorf("not found by %s", path)
		}
	}
	finds(t, dial(t, c), "x")
	if status, log := second.stop(unix.SIGTERM); status != 0 || !strings.Contains(log, a+": statistics: address lookup hits=1 miss=0 success=100%") {
		t.Errorf("exit status %d, log %q", status, log)
	}
	for _, path := range []string{a, b, c} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is there still: %v", path, err)
		}
	}
}

// A socket that the flags do not name is served, and removed at the end unless it is somebody else's by then.
// The permissions of one that was taken over stay.
func TestTakeOverWithOtherFlags(t *testing.T) {
	dir := t.TempDir()
	a, b, replaced := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "replaced")
	first := startServe(t, a, "-socket", b, "-socket", replaced)
	os.Remove(replaced)
	other := startServe(t, replaced)
	second := startServe(t, a, "-mode", "0660", "-takeover")
	io.Copy(io.Discard, first.log)
	first.cmd.Wait()
	for _, path := range []string{a, b} {
		finds(t, dial(t, path), "x")
		if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	second.stop(unix.SIGTERM)
	for _, path := range []string{a, b} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is there still: %v", path, err)
		}
	}
	finds(t, dial(t, replaced), "x")
	other.stop(unix.SIGTERM)
}

// One of several sockets is another server's: nobody loses anything.
func TestTakeOverFromTwo(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	first, second := startServe(t, a), startServe(t, b)
	refused(t, 1, "another server than the one to take over from listens on "+b, "-socket", a, "-socket", b, "-takeover")
	for path, s := range map[string]*serving{a: first, b: second} {
		finds(t, dial(t, path), "x")
		if status, _ := s.stop(unix.SIGTERM); status != 0 {
			t.Errorf("exit status %d", status)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is there still: %v", path, err)
		}
	}
}

// A server that hangs, and whose listen queue is full, is not waited for.
func TestTakeOverFromFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "full")
	address := &unix.SockaddrUnix{Name: path}
	newSocket := func(kind int) int {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|kind, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	listener := newSocket(0)
	if err := errors.Join(unix.Bind(listener, address), unix.Listen(listener, 0)); err != nil {
		t.Fatal(err)
	}
	for err := error(nil); err != unix.EAGAIN; {
		if err = unix.Connect(newSocket(unix.SOCK_NONBLOCK), address); err != nil && err != unix.EAGAIN {
			t.Fatal(err)
		}
	}
	refused(t, 1, "the server there does not accept clients", "-socket", path, "-takeover")
}

// forAll makes a directory in which all users may make sockets, with the program in it.
func forAll(t *testing.T) (dir, file string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "scache")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "scache")
	copyFile(t, binary, file)
	return dir, file
}

// Only the server's own user takes over, even if the socket is open to all; and nobody takes over
// from another user's server, be he root.
func TestTakeOverByAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can be another user")
	}
	dir, file := forAll(t)
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	for name, users := range map[string][2]*syscall.SysProcAttr{"of root": {nil, nobody}, "of nobody": {nobody, nil}} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			cmd := exec.Command(file, "serve", "-socket", socket, "-mode", "0666", "-ttl-limit", "1h")
			cmd.SysProcAttr = users[0]
			s := startCommand(t, socket, cmd)
			c := dial(t, socket)
			saveNull(t, c, "x")
			other := exec.Command(file, "serve", "-socket", socket, "-takeover")
			other.SysProcAttr = users[1]
			out, _ := other.CombinedOutput()
			if other.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "only the server's own user may") {
				t.Errorf("%v: %s", other.ProcessState, out)
			}
			if !finds(t, c, "x") {
				t.Error("not found any longer")
			}
			if status, log := s.stop(unix.SIGTERM); status != 0 || !strings.Contains(log, "takeover: refused") {
				t.Errorf("exit status %d, log %q", status, log)
			}
		})
	}
}

// One whose only sockets were those of a server that has died in the hand-over has nothing to serve.
func TestTakeOverOfPassedSocketsFromTheDead(t *testing.T) {
	ours, theirs := socketPair(t)
	quoted := func(text string) string { return strings.ReplaceAll(text, "\x00", `\000`) }
	dying := exec.Command("sh", "-c", `printf "$1"; head -c "$2" >&2; printf "$3"; kill -KILL $$`, "sh",
		quoted(proto.Announcement), strconv.Itoa(len(proto.AppendTakeOver(nil))), quoted(string(proto.AppendStatus(nil, proto.OK))))
	dying.Stdin, dying.Stdout = theirs, theirs
	if err := dying.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	successor := exec.CommandContext(limit(t), binary, "serve")
	successor.ExtraFiles = []*os.File{ours}
	successor.Env = append(os.Environ(), predecessorVariable+"=3")
	out, _ := successor.CombinedOutput()
	_ = dying.Wait() // until now it can be looked at
	if status := successor.ProcessState.ExitCode(); status != 1 || !strings.Contains(string(out), "there is no socket to serve") {
		t.Errorf("exit status %d, log %s", status, out)
	}
}

func socketPair(t *testing.T) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b = os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// The first process of a container stays: with it the container would end.
func TestHangUpOfFirstProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can make a process number 1")
	}
	socket := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command(binary, "serve", "-socket", socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	s := startCommand(t, socket, cmd)
	cmd.Process.Signal(unix.SIGHUP)
	if line, err := s.log.ReadString('\n'); err != nil || !strings.Contains(line, "no successor: a container ends with its first process") {
		t.Fatalf("%q, %v", line, err)
	}
	finds(t, dial(t, socket), "x")
	if status, _ := s.stop(unix.SIGTERM); status != 0 {
		t.Errorf("exit status %d", status)
	}
}
