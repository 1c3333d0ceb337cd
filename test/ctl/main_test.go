package ctl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scache/scache/client"
	"github.com/scache/scache/internal/lab"
)

var (
	scache    string // the daemon
	scachectl string // the command
)

func TestMain(m *testing.M) { os.Exit(buildAround(m.Run)) }

func buildAround(run func() int) int {
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755) // others run the command, too
	ctx := context.Background()
	if scache, err = lab.Build(ctx, dir); err == nil {
		scachectl, err = lab.BuildCtl(ctx, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// patience bounds each wait; no test asserts how long something took.
const patience = time.Minute

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server is a "scache serve".
type server struct {
	t      *testing.T
	socket string
	cmd    *exec.Cmd
}

// serve starts one on a socket of the test, with further flags.
func serve(t *testing.T, flags ...string) *server {
	t.Helper()
	s := &server{t: t, socket: filepath.Join(t.TempDir(), "s")}
	s.start(flags...)
	return s
}

func (s *server) start(flags ...string) {
	s.t.Helper()
	cmd := exec.Command(scache, append([]string{"serve", "-socket", s.socket}, flags...)...)
	log, err := cmd.StderrPipe()
	must(s.t, err)
	must(s.t, cmd.Start())
	s.cmd = cmd
	s.t.Cleanup(s.stop)
	if line, err := bufio.NewReader(log).ReadString('\n'); !strings.Contains(line, "listening on") {
		s.t.Fatalf("no server: %q, %v", line, err)
	}
	go io.Copy(io.Discard, log)
}

// stop ends the server, if it has not ended.
func (s *server) stop() {
	if s.cmd.ProcessState == nil {
		s.cmd.Process.Signal(syscall.SIGTERM)
		s.cmd.Wait()
	}
}

// result is what a run of scachectl came to.
type result struct {
	status         int
	stdout, stderr string
}

// run runs scachectl without a terminal.
func run(t *testing.T, arguments ...string) result {
	t.Helper()
	return runAs(t, nil, arguments...)
}

func runAs(t *testing.T, user *syscall.Credential, arguments ...string) result {
	t.Helper()
	cmd := exec.CommandContext(limit(t), scachectl, arguments...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ctl runs scachectl on the server, and returns what it prints.
func (s *server) ctl(arguments ...string) string {
	s.t.Helper()
	return ctl(s.t, s.socket, arguments...)
}

func ctl(t *testing.T, socket string, arguments ...string) string {
	t.Helper()
	r := run(t, append(arguments, "-socket", socket)...)
	if r.status != 0 || r.stderr != "" {
		t.Fatalf("scachectl %q: exit status %d: %s", arguments, r.status, r.stderr)
	}
	return r.stdout
}

// fromJSON runs scachectl with -json, and decodes what it prints.
func fromJSON[T any](t *testing.T, socket string, arguments ...string) (value T) {
	t.Helper()
	return decode[T](t, ctl(t, socket, append(arguments, "-json")...))
}

func decode[T any](t *testing.T, text string) (value T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("printed %s: %v", text, err)
	}
	return value
}

// shell carries out a command as somebody would who copies it.
func shell(t *testing.T, command string) {
	t.Helper()
	cmd := exec.CommandContext(limit(t), "/bin/sh", "-c", command)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// statistics is what "status" says.
func statistics(t *testing.T, socket string) map[string]int64 {
	t.Helper()
	numbers := map[string]int64{}
	for name, value := range fromJSON[map[string]any](t, socket, "status") {
		if n, ok := value.(float64); ok {
			numbers[name] = int64(n)
		}
	}
	return numbers
}

func (s *server) dial() *client.Client {
	s.t.Helper()
	c, err := client.Dial(limit(s.t), s.socket)
	must(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// save saves so many connections, to a listener of ours, under an endpoint that a
// destination refers to.
func (s *server) save(destination, endpoint string, n int) {
	s.t.Helper()
	c, ctx := s.dial(), limit(s.t)
	must(s.t, c.SaveDestination(ctx, time.Minute, destination, "", endpoint))
	for range n {
		conn := dialSelf(s.t)
		must(s.t, c.SaveEndpoint(ctx, time.Minute, endpoint, "property\n", conn))
	}
}
