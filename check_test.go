package main

import (
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/lab"
	"github.com/scache/scache/proto"
)

// wantCheck runs "scache check", and wants this exit status, and one line with this
// text in it.
func wantCheck(t *testing.T, status int, want string, arguments ...string) {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"check"}, arguments...)...)
	out, _ := cmd.CombinedOutput()
	text := string(out)
	if got := cmd.ProcessState.ExitCode(); got != status || !strings.Contains(text, want) {
		t.Errorf("check %q: exit status %d, said %q; want %d and %q", arguments, got, text, status, want)
	}
	if status < 2 && (!strings.HasPrefix(text, "scache check: ") || strings.Count(text, "\n") != 1) {
		t.Errorf("check %q: said %q, want one line", arguments, text)
	}
}

func TestCheckOfAServer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	wantCheck(t, 1, "no such file or directory", "-socket", socket)

	s := startServe(t, socket)
	wantCheck(t, 0, "answers on "+socket, "-socket", socket)

	// It is there, and clients connect, but it serves nobody.
	if err := lab.Stop(limit(t), s.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	wantCheck(t, 1, "deadline exceeded", "-socket", socket, "-timeout", "100ms")
	s.cmd.Process.Signal(unix.SIGCONT)
	wantCheck(t, 0, "answers on "+socket, "-socket", socket)

	if _, log := s.stop(unix.SIGTERM); !strings.Contains(log, "address lookup hits=0 miss=2 ") {
		t.Errorf("two checks are not two look-ups in vain: %q", log)
	}

	s = startServe(t, socket)
	s.cmd.Process.Kill()
	s.cmd.Wait()
	wantCheck(t, 1, "connection refused", "-socket", socket)
}

func TestCheckRefuses(t *testing.T) {
	wantCheck(t, 2, "unexpected argument: more", "more")
	wantCheck(t, 2, "flag provided but not defined", "-nonsense")
	if out, err := exec.Command(binary, "check", "-h").CombinedOutput(); err != nil || !strings.Contains(string(out), imageSocket) {
		t.Errorf("check -h: %q, %v", out, err)
	}
}

// Whatever else listens is not taken for a cache.
func TestCheckOfSomethingElse(t *testing.T) {
	for name, test := range map[string]struct{ says, want string }{
		"nothing":          {"", "no reply"},
		"another greeting": {"220 mail.example ESMTP\x00\x00\x00", "is no connection cache"},
		"no reply":         {proto.Announcement, "no reply"},
		"a wrong reply":    {proto.Announcement + "status\x001\x00property\x00\x00\x00", "unexpected bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			listener, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				io.WriteString(conn, test.says)
				conn.(*net.UnixConn).CloseWrite()
				io.Copy(io.Discard, conn)
				conn.Close()
			}()
			wantCheck(t, 1, test.want, "-socket", socket)
		})
	}
}
