package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/client"
	"github.com/scache/scache/internal/lab"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "scache")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if binary, err = lab.Build(context.Background(), dir); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

// serving is a running "scache serve".
type serving struct {
	t      *testing.T
	cmd    *exec.Cmd
	socket string
	log    *bufio.Reader
}

// startServe returns when the server listens.
func startServe(t *testing.T, socket string, arguments ...string) *serving {
	t.Helper()
	return startCommand(t, socket, exec.Command(binary, append([]string{"serve", "-socket", socket}, arguments...)...))
}

func startCommand(t *testing.T, socket string, cmd *exec.Cmd) *serving {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &serving{t, cmd, socket, bufio.NewReader(stderr)}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	for {
		line, err := s.log.ReadString('\n')
		if err != nil {
			t.Fatalf("no server: %q, %v", line, err)
		}
		if strings.Contains(line, "listening on "+socket) {
			return s
		}
	}
}

// stop sends a signal, and returns the exit status and the rest of the log.
func (s *serving) stop(number os.Signal) (status int, log string) {
	s.t.Helper()
	s.cmd.Process.Signal(number)
	rest, _ := io.ReadAll(s.log)
	s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode(), string(rest)
}

// refused runs a command line that cannot work.
func refused(t *testing.T, status int, want string, arguments ...string) {
	t.Helper()
	cmd := exec.CommandContext(limit(t), binary, append([]string{"serve"}, arguments...)...)
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != status {
		t.Errorf("%q: %v, want exit status %d", arguments, err, status)
	}
	if !strings.Contains(string(out), want) {
		t.Errorf("%q: said %q, want %q in it", arguments, out, want)
	}
}

// Without this a misspelt word would be for master(8)'s daemon, which says all it says to the mail log.
func TestMisspeltCommand(t *testing.T) {
	cmd := exec.CommandContext(limit(t), binary, "serv", "-socket", "x")
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 2 || !strings.HasPrefix(string(out), "scache: there is no command serv\n") {
		t.Errorf("%v, said %q", cmd.ProcessState, out)
	}
}

func TestServeMakesAndRemovesItsSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	for _, number := range []os.Signal{unix.SIGTERM, unix.SIGINT} {
		s := startServe(t, socket, "-mode", "0620")
		if info, err := os.Lstat(socket); err != nil || info.Mode() != fs.ModeSocket|0o620 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if c, err := client.Dial(t.Context(), socket); err != nil {
			t.Error(err)
		} else if _, err := c.FindEndpoint(t.Context(), "x"); err != client.ErrNotFound {
			t.Error(err)
		}
		status, log := s.stop(number)
		if status != 0 || !strings.Contains(log, "statistics: address lookup hits=0 miss=1 success=0%") {
			t.Errorf("%v: exit status %d, log %q", number, status, log)
		}
		if _, err := os.Lstat(socket); !os.IsNotExist(err) {
			t.Errorf("%v: the socket is there still: %v", number, err)
		}
	}
}

func TestServeReplacesAStaleSocketOnly(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	s := startServe(t, socket)
	refused(t, 1, "another server is listening on "+socket, "-socket", socket)
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s = startServe(t, socket) // the dead one's is there still

	// Somebody else's socket is not removed at the end.
	os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s.stop(unix.SIGTERM)
	if _, err := os.Lstat(socket); err != nil {
		t.Error(err)
	}
}

func TestServeRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, 1, "exists and is not a socket", "-socket", file)
	if text, err := os.ReadFile(file); string(text) != "keep" {
		t.Errorf("%q, %v", text, err)
	}
	refused(t, 1, "no such file or directory", "-socket", filepath.Join(dir, "none", "s"))
	refused(t, 1, "has 107 bytes at most", "-socket", filepath.Join(dir, strings.Repeat("x", 108)))
	refused(t, 2, "must not begin with @", "-socket", "@x")
	refused(t, 2, "-socket is required")
	refused(t, 2, "unexpected argument: more", "-socket", file, "more")
	refused(t, 2, "not an octal number", "-socket", file, "-mode", "rw")
	refused(t, 2, "-ttl-limit must be whole seconds", "-socket", file, "-ttl-limit", "1500ms")
	refused(t, 2, "flag provided but not defined", "-socket", file, "-nonsense")
	refused(t, 2, `invalid value "1x" for flag -ttl-limit`, "-socket", file, "-ttl-limit", "1x")
	refused(t, 1, "the directory of the socket "+dir+"/none/s: ", "-socket", dir+"/none/s", "-ttl-limit", "60")
}

func TestServeStopsWhenIdle(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	s := startServe(t, socket, "-max-idle", "50ms")
	if err := s.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Error("the socket is there still")
	}
}

// At the descriptor limit nothing may want one for itself, and Go's runtime least
// of all: it ends the process if it does not get it.
func TestServeLivesAtTheDescriptorLimit(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	shell := exec.Command("sh", "-c", `ulimit -n 32; exec "$@"`, "sh", binary, "serve", "-socket", socket, "-ttl-limit", "1h")
	s := startCommand(t, socket, shell)
	c, err := client.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	saved := 0
	for ; err == nil; saved++ {
		err = c.SaveEndpoint(t.Context(), time.Hour, "x", "", file)
	}
	if err != client.ErrRefused || saved < 10 {
		t.Fatalf("%d saved, %v", saved, err)
	}
	// Work for the collector, and for the runtime's timers.
	large := string(bytes.Repeat([]byte{'x'}, 3<<20))
	for deadline := time.Now().Add(2500 * time.Millisecond); time.Now().Before(deadline); {
		if err := c.SaveDestination(t.Context(), time.Second, large, "", "x"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if status, log := s.stop(unix.SIGTERM); status != 0 {
		t.Errorf("exit status %d, log %q", status, log)
	}
}

// standardInputCommand is the program with option -S.
func standardInputCommand(t *testing.T, stdin, stdout *os.File) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte("queue_directory = "+dir+"\ncompatibility_level = 3.6\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-S")
	cmd.Args[0] = "scache"
	cmd.Env = []string{"MAIL_CONFIG=" + dir}
	cmd.Stdin, cmd.Stdout = stdin, stdout
	return cmd
}

// Option -S: one client on standard input, whatever that is.
func TestStandardInput(t *testing.T) {
	request, want := "request\x00find_endp\x00label\x00x\x00\x00", "status\x002\x00property\x00\x00\x00"
	run := func(stdin, stdout *os.File) {
		t.Helper()
		if err := standardInputCommand(t, stdin, stdout).Run(); err != nil {
			t.Error(err)
		}
		stdin.Close()
		stdout.Close()
	}

	in, out, back, reply := pipes(t)
	io.WriteString(in, request)
	in.Close()
	run(out, back)
	if got, err := io.ReadAll(reply); string(got) != want {
		t.Errorf("over pipes: %q, %v", got, err)
	}

	ours, theirs := socketPair(t)
	io.WriteString(ours, request)
	unix.Shutdown(int(ours.Fd()), unix.SHUT_WR)
	run(theirs, theirs)
	if got, err := io.ReadAll(ours); string(got) != want {
		t.Errorf("over a socket: %q, %v", got, err)
	}
}

// Nobody reads the replies any longer, and more requests come: it ends.
func TestStandardOutputIsClosed(t *testing.T) {
	in, out, back, reply := pipes(t)
	go func() {
		defer in.Close()
		for err := error(nil); err == nil; {
			_, err = io.WriteString(in, "request\x00find_endp\x00label\x00x\x00\x00")
		}
	}()
	cmd := standardInputCommand(t, out, back)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Minute, func() { cmd.Process.Kill() }).Stop()
	back.Close()
	out.Close()
	io.ReadFull(reply, make([]byte, 1000))
	reply.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func pipes(t *testing.T) (in, out, back, reply *os.File) {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reply, back, err = os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return in, out, back, reply
}

// Each socket has a cache of its own, and statistics of its own.
func TestServeSeveralSockets(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	s := startServe(t, one, "-socket", two, "-ttl-limit", "1h")
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var clients []*client.Client
	for _, path := range []string{one, two} {
		c, err := client.Dial(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	if err := clients[0].SaveEndpoint(t.Context(), time.Hour, "x", "", file); err != nil {
		t.Fatal(err)
	}
	if err := clients[1].SaveDestination(t.Context(), time.Hour, "d", "", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := clients[1].FindDestination(t.Context(), "d"); err != client.ErrNotFound {
		t.Errorf("found through the other socket: %v", err)
	}
	if _, err := clients[0].FindEndpoint(t.Context(), "x"); err != nil {
		t.Error(err)
	}
	_, log := s.stop(unix.SIGTERM)
	for _, want := range []string{
		one + ": statistics: address lookup hits=1 miss=0 success=100%",
		one + ": statistics: max simultaneous domains=0 addresses=1 connection=1",
		two + ": statistics: domain lookup hits=0 miss=1 success=0%",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log:\n%s", want, log)
		}
	}
	for _, path := range []string{one, two} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is there still: %v", path, err)
		}
	}
	refused(t, 2, "given twice", "-socket", one, "-socket", dir+"/./1")
	// All or none.
	refused(t, 1, "exists and is not a socket", "-socket", one, "-socket", "/dev/null")
	if _, err := os.Lstat(one); !os.IsNotExist(err) {
		t.Errorf("%s is there: %v", one, err)
	}
}
