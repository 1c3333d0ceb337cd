package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/client"
)

// wantDeclined saves a connection, and finds it closed.
func wantDeclined(t *testing.T, c *client.Client, label string) {
	t.Helper()
	here := savePipe(t, c, label)
	if _, err := here.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%s: %v", label, err)
	}
	if _, err := c.FindEndpoint(t.Context(), label); err != client.ErrNotFound {
		t.Errorf("%s: %v", label, err)
	}
}

// wantKept saves a connection, and finds it.
func wantKept(t *testing.T, c *client.Client, label string) {
	t.Helper()
	savePipe(t, c, label)
	if _, err := c.FindEndpoint(t.Context(), label); err != nil {
		t.Errorf("%s: %v", label, err)
	}
}

// savePipe saves one end of a pipe, and returns the other one.
func savePipe(t *testing.T, c *client.Client, label string) (here *os.File) {
	t.Helper()
	here, there, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close() })
	if err := c.SaveEndpoint(t.Context(), time.Hour, label, "", there); err != nil {
		t.Error(err)
	}
	there.Close()
	return here
}

// policyPlaces are where to put a socket and a policy, and what writes that.
func policyPlaces(t *testing.T) (socket, file string, write func(text string)) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "policy")
	return filepath.Join(dir, "s"), file, func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// -policy-file is read at start; one that is not right is refused, and no socket is made.
func TestServePolicy(t *testing.T) {
	socket, file, write := policyPlaces(t)
	write("* ttl=5s\n* keep=none\n")
	refused(t, 1, file+", line 2: keep=none: want a number", "-socket", socket, "-policy-file", file)
	refused(t, 1, "open "+file+".not: no such file or directory", "-socket", socket, "-policy-file", file+".not")
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket: %v", err)
	}

	write("endpoint=none cache=no\n")
	s := startServe(t, socket, "-ttl-limit", "1h", "-policy-file", file)
	c, err := client.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantDeclined(t, c, "none")
	wantKept(t, c, "other")
	if _, log := s.stop(unix.SIGTERM); !strings.Contains(log, "policy "+file+": rules=1") || !strings.Contains(log, " declined=1;") {
		t.Errorf("log %q", log)
	}
}

// At SIGHUP another process takes over, with the file as it is now. If that is wrong the old
// one goes on, and the log says why.
func TestServePolicyIsReadAnew(t *testing.T) {
	socket, file, write := policyPlaces(t)
	write("endpoint=a cache=no\n")
	s := startServe(t, socket, "-ttl-limit", "1h", "-policy-file", file)
	c, err := client.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantDeclined(t, c, "a")

	write("endpoint=b cache=no\nendpoint=c cache=never\n")
	s.cmd.Process.Signal(unix.SIGHUP)
	s.logged(file + `, line 2: cache=never: want yes or no`)
	s.logged(`no successor: `)
	wantDeclined(t, c, "a")
	wantKept(t, c, "b")

	write("endpoint=b cache=no\n")
	s.cmd.Process.Signal(unix.SIGHUP)
	pid, err := strconv.Atoi(s.logged(`process (\d+) has taken over`)[1])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(pid, unix.SIGTERM)
	wantKept(t, c, "a")
	wantDeclined(t, c, "b")
	if err := s.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// logged reads the log up to a line that matches, and returns the match.
func (s *serving) logged(pattern string) []string {
	s.t.Helper()
	expression := regexp.MustCompile(pattern)
	for {
		line, err := s.log.ReadString('\n')
		if match := expression.FindStringSubmatch(line); match != nil {
			return match
		}
		if err != nil {
			s.t.Fatalf("no %q in the log: %v", pattern, err)
		}
	}
}
