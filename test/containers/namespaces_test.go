package containers_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/scache/scache/internal/lab"
)

func TestNamespaces(t *testing.T) {
	play(t, newNamespaces(t))
}

// namespaces is a site without containers. Postfix and the receivers are in a network
// and a mount namespace; the cache is in others, its root a directory that
// holds its binary and its socket, and Postfix sees of it the socket's directory only.
type namespaces struct {
	*lab.Lab
	sinks  []*lab.SMTPSink
	holder *os.Process // the first process in Postfix's place
	root   string      // of the cache
	owner  uint32
	log    buffer // the cache's

	mu     sync.Mutex
	cache  *exec.Cmd
	ended  chan struct{} // closed when this one has ended, and another is there, if need be
	closed bool
}

func newNamespaces(t *testing.T) *namespaces {
	ctx := limit(t)
	n := &namespaces{root: t.TempDir()}
	n.holder = hold(t)
	enter := []string{"nsenter", "--target", strconv.Itoa(n.holder.Pid), "--mount", "--net", "--ipc", "--uts", "--"}
	routes := map[string]string{}
	for _, domain := range []string{"a.example", "b.example"} {
		sink, err := lab.NewSMTPSink(ctx, enter...)
		must(t, err)
		t.Cleanup(sink.Close)
		n.sinks = append(n.sinks, sink)
		routes[domain] = fmt.Sprintf("[127.0.0.1]:%d", sink.Port())
	}
	var err error
	n.Lab, err = lab.New(lab.Config{
		Enter:  enter,
		Routes: routes,
		Main: map[string]string{
			"connection_cache_service_name":      "shared/socket",
			"smtp_connection_cache_destinations": "127.0.0.1",
		},
	})
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })

	n.owner = uint32(n.OwnerUID())
	_, err = lab.Build(ctx, n.root)
	must(t, err)
	socketDir := n.directory(t, filepath.Join(n.root, "run"), "scache")
	shared := n.directory(t, filepath.Join(n.QueueDir(), "private"), "shared")
	_, err = command(ctx, append(enter, "mount", "--bind", socketDir, shared)...)
	must(t, err)
	_, err = command(ctx, append(enter, "mount", "-t", "tmpfs", "-o", "ro", "tmpfs", n.root)...)
	must(t, err)

	n.start()
	t.Cleanup(n.end)
	must(t, n.Start(ctx))
	return n
}

// hold starts a process in new namespaces, which lives as long as the test.
func hold(t *testing.T) *os.Process {
	t.Helper()
	cmd := exec.Command("unshare", "--mount", "--net", "--ipc", "--uts", "sh", "-c", "ip link set lo up && echo ready && read word")
	input, err := cmd.StdinPipe() // it sees the end of it when we die
	must(t, err)
	output, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() {
		input.Close()
		cmd.Wait()
	})
	if word, err := bufio.NewReader(output).ReadString('\n'); word != "ready\n" {
		t.Fatalf("no namespaces: %q, %v", word, err)
	}
	return cmd.Process
}

// directory makes parent/name, both mail_owner's and nobody else's.
func (n *namespaces) directory(t *testing.T, parent, name string) string {
	t.Helper()
	path := filepath.Join(parent, name)
	must(t, os.MkdirAll(path, 0o700))
	for _, directory := range []string{parent, path} {
		must(t, os.Chown(directory, int(n.owner), int(n.owner)))
	}
	return path
}

// inside is a command of the binary in the cache's root, as mail_owner, without a
// network. It dies with us.
func (n *namespaces) inside(ctx context.Context, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/scache", arguments...)
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     n.root,
		Credential: &syscall.Credential{Uid: n.owner, Gid: n.owner},
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	return cmd
}

// start starts the cache, and starts it again whenever it has ended, as an engine does.
func (n *namespaces) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	ended := make(chan struct{})
	n.ended = ended
	if n.closed {
		close(ended)
		return
	}
	cmd := n.inside(context.Background(), "serve", "-socket", "/run/scache/socket", "-ttl-limit", "60s")
	cmd.Stderr = &n.log
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(&n.log, err) // nobody will answer there
		close(ended)
		return
	}
	n.cache = cmd
	go func() {
		cmd.Wait()
		n.start()
		close(ended)
	}()
}

// terminate ends the cache, and returns when it has its successor, if it gets one.
func (n *namespaces) terminate(last bool) {
	n.mu.Lock()
	ended := n.ended
	n.closed = n.closed || last
	n.cache.Process.Signal(syscall.SIGTERM)
	n.mu.Unlock()
	<-ended
}

func (n *namespaces) end() { n.terminate(true) }

func (n *namespaces) restart(context.Context) error {
	n.terminate(false)
	return nil
}

func (n *namespaces) cachePID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cache.Process.Pid
}

func (n *namespaces) postfixPID() int {
	pid, _ := n.MasterPID()
	return pid
}

func (n *namespaces) run(ctx context.Context, name string, arguments ...string) (string, error) {
	return n.Run(ctx, name, arguments...)
}

func (n *namespaces) inlet() string    { return "unix:" + filepath.Join(n.QueueDir(), "public/inject") }
func (n *namespaces) mailLog() string  { return n.Log() }
func (n *namespaces) cacheLog() string { return n.log.String() }

func (n *namespaces) check(ctx context.Context, arguments ...string) error {
	out, err := n.inside(ctx, slices.Concat([]string{"check"}, arguments)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (n *namespaces) finish(ctx context.Context) (seen lab.SMTPSinkCounts, err error) {
	if _, ok := n.ScachePID(); ok {
		return seen, errors.New("Postfix has started its own cache, too")
	}
	if err := n.Stop(ctx); err != nil {
		return seen, err
	}
	n.end()
	for _, sink := range n.sinks {
		c, err := sink.Counts(ctx)
		if err != nil {
			return seen, err
		}
		seen.Sessions += c.Sessions
		seen.Messages += c.Messages
	}
	return seen, nil
}
