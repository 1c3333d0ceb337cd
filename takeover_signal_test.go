package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/handover"
	"github.com/scache/scache/internal/lab"
	"github.com/scache/scache/postfix"
	"github.com/scache/scache/proto"
)

// copying starts a server and a successor, which stands still in the middle of being sent what is cached.
func copying(t *testing.T, socket string) (old *serving, successor *exec.Cmd, log io.Reader) {
	t.Helper()
	old = startServe(t, socket, "-ttl-limit", "1h")
	c := dial(t, socket)
	for i := range 20_000 { // more than a socket's buffer holds
		if err := c.SaveDestination(t.Context(), time.Hour, fmt.Sprint("destination ", i), strings.Repeat("p", 300), "endpoint"); err != nil {
			t.Fatal(err)
		}
	}
	saveNull(t, c, "x")
	successor = exec.Command(binary, "serve", "-socket", socket, "-ttl-limit", "1h", "-takeover")
	log, err := successor.StderrPipe()
	if err == nil {
		err = successor.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		successor.Process.Kill()
		successor.Wait()
	})
	for deadline := time.Now().Add(patience); !hasPidfd(successor.Process.Pid); { // it knows the server by then
		if time.Now().After(deadline) {
			t.Fatal("it does not take over")
		}
	}
	if err := lab.Stop(limit(t), successor.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return old, successor, log
}

func hasPidfd(pid int) bool {
	descriptors, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, d := range descriptors {
		if to, _ := os.Readlink(d); strings.Contains(to, "pidfd") {
			return true
		}
	}
	return false
}

// Who wants to end the successor before it is the server ends nothing else. The server is played here.
func TestTakeOverIsCancelled(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	successor := exec.CommandContext(limit(t), binary, "serve", "-socket", socket, "-takeover")
	if err := successor.Start(); err != nil {
		t.Fatal(err)
	}
	client, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	connection, err := client.File()
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	sockets, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	defer sockets.Close()
	channel := handover.NewChannel(int(connection.Fd()))
	cache := &handover.Record{Cache: &handover.Cache{Name: socket}}
	err = channel.SendMessage([]byte(proto.Announcement))
	_, asked := channel.ReceiveMessage()
	if err := errors.Join(err, asked, channel.SendMessage(proto.AppendStatus(nil, proto.OK)),
		channel.Send(&handover.Record{Hello: &handover.Hello{Version: handover.Version, Through: socket}}), channel.Send(cache), channel.Flush()); err != nil {
		t.Fatal(err)
	}
	successor.Process.Signal(unix.SIGTERM)
	time.Sleep(200 * time.Millisecond) // it has no way to tell that it knows
	if err := errors.Join(channel.Send(&handover.Record{Stopped: &handover.Stopped{StatisticsDue: 1 << 40}}),
		channel.Send(cache, int(sockets.Fd())), channel.Send(&handover.Record{End: &handover.End{}}), channel.Flush()); err != nil {
		t.Fatal(err)
	}
	if err := channel.ReceiveAnswer(); err == nil || err.Error() != errCancelled.Error() {
		t.Errorf("it answers %v", err)
	}
	if err := successor.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Error(err)
	}
}

// A directory that somebody has locked, for whatever reason, keeps nobody from ending.
func TestEndInLockedDirectory(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	s := startServe(t, socket)
	unlock, err := lockDirectory(socket, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if status, log := s.stop(unix.SIGTERM); status != 0 {
		t.Errorf("exit status %d, log %q", status, log)
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("%s is there still: %v", socket, err)
	}
}

// Who wants to end both, as a terminal or systemd does, ends both.
func TestTakeOverEndsWithBoth(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	old, successor, log := copying(t, socket)
	successor.Process.Signal(unix.SIGTERM)
	if status, log := old.stop(unix.SIGTERM); status != 0 {
		t.Errorf("exit status %d, log %q", status, log)
	}
	successor.Process.Signal(unix.SIGCONT)
	text, _ := io.ReadAll(log)
	if err := successor.Wait(); err != nil {
		t.Errorf("the successor: %v, %s", err, text)
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("%s is there still: %v", socket, err)
	}
}

// systemd may be busy when the service becomes another process: it is told all the same.
func TestHangUpBesideBusyManager(t *testing.T) {
	dir := t.TempDir()
	socket, name := filepath.Join(dir, "s"), filepath.Join(dir, "notify")
	busy, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	cmd := exec.Command(binary, "serve", "-socket", socket)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+name)
	s := startCommand(t, socket, cmd)
	finds(t, dial(t, socket), "x") // READY=1 was said before
	others, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(others)
	for err = nil; err == nil; {
		err = unix.Sendto(others, []byte("X=1"), unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: name})
	}
	cmd.Process.Signal(unix.SIGHUP)
	for line := ""; !strings.Contains(line, "listening"); { // the successor
		if line, err = s.log.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond) // time enough to try in vain
	busy.SetReadDeadline(time.Now().Add(patience))
	for message := make([]byte, 1000); ; {
		n, err := busy.Read(message)
		if err != nil {
			t.Fatalf("it was not told: %v", err)
		}
		var pid int
		if _, err := fmt.Sscanf(string(message[:n]), "MAINPID=%d", &pid); err == nil {
			unix.Kill(pid, unix.SIGTERM)
			return
		}
	}
}

// A successor that does nothing is not waited for for ever.
func TestSilentSuccessor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sleeps")
	if err := os.WriteFile(file, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	n := successor{log: postfix.NewStderrLog(postfix.DatedText), service: &service{}, patience: 10 * time.Millisecond}
	_, theirs := socketPair(t)
	if err := n.run(file, theirs); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); n.process.Load() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is waited for still")
		}
	}
}

// A server of a user whom strangers look like lets no one take over but the process that it has started.
func TestTakeOverByStrangers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can be other users")
	}
	dir, file := forAll(t)
	socket := filepath.Join(dir, "s")
	const nobody = 65534
	cmd := exec.Command(file, "serve", "-socket", socket, "-mode", "0666")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: 12345, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: 12345, Size: 1}},
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true},
	}
	s := startCommand(t, socket, cmd)
	other := exec.Command(file, "serve", "-socket", socket, "-takeover")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 23456, Gid: 23456}}
	out, _ := other.CombinedOutput()
	if other.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "only the server's own user may") {
		t.Errorf("%v: %s", other.ProcessState, out)
	}
	s.cmd.Process.Signal(unix.SIGHUP)
	for taken := regexp.MustCompile(`process (\d+) has taken over`); ; {
		line, err := s.log.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if found := taken.FindStringSubmatch(line); found != nil {
			pid, _ := strconv.Atoi(found[1])
			unix.Kill(pid, unix.SIGTERM)
			break
		}
	}
	if err := s.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Option -S ends at a signal though nobody reads what is said.
func TestStandardInputUnread(t *testing.T) {
	in, out, back, reply := pipes(t)
	defer reply.Close()
	cmd := standardInputCommand(t, out, back)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	back.Close()
	in.SetWriteDeadline(time.Now().Add(time.Second)) // until neither reads
	for err := error(nil); err == nil; {
		_, err = io.WriteString(in, strings.Repeat("request\x00find_endp\x00label\x00x\x00\x00", 1000))
	}
	cmd.Process.Signal(unix.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(patience):
		cmd.Process.Kill()
		t.Error("it does not end")
	}
}
