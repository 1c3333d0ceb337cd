package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/server"
)

// predecessorVariable names the descriptor that connects a process to the server that has
// started it to be its successor.
const predecessorVariable = "SCACHE_PREDECESSOR"

// isSuccessor reports whether a server has started us to take its place.
func isSuccessor() bool {
	_, ok := os.LookupEnv(predecessorVariable)
	return ok
}

// serverBefore is the server that serves while we start, if we shall take over from it.
type serverBefore struct {
	connection int    // -1: there is none
	through    string // the socket it was connected to by; empty: it has started us
}

func (b serverBefore) there() bool { return b.connection >= 0 }

func (b serverBefore) close() {
	if b.there() {
		unix.Close(b.connection)
	}
}

// waitForEnd waits, for a moment at most, until the server before has let go of its sockets: it
// closes the connection after them. What listens on them afterwards is somebody else's.
func (b serverBefore) waitForEnd() {
	if !b.there() {
		return
	}
	moment := unix.Timeval{Sec: 1}
	err := errors.Join(unix.SetNonblock(b.connection, false), unix.SetsockoptTimeval(b.connection, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &moment))
	if err != nil {
		return
	}
	for err = unix.EINTR; err == unix.EINTR; {
		_, err = unix.Read(b.connection, make([]byte, 1))
	}
}

// findServerBefore connects to the server that has started us, or, with -takeover, to one that
// listens on one of our sockets.
func findServerBefore(o serveOptions) (serverBefore, error) {
	none := serverBefore{connection: -1}
	if text, ok := os.LookupEnv(predecessorVariable); ok {
		os.Unsetenv(predecessorVariable)
		fd, err := strconv.Atoi(text)
		if err != nil {
			return none, fmt.Errorf("%s=%s: not a descriptor", predecessorVariable, text)
		}
		unix.CloseOnExec(fd)
		return serverBefore{connection: fd}, nil
	}
	if !o.takeOver {
		return none, nil
	}
	for _, path := range o.paths {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return none, fmt.Errorf("socket: %w", err)
		}
		// Connecting waits while the listen queue of a server that hangs is full. What is sent before
		// its sender is asked for comes from nobody.
		err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1}),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
		if err != nil {
			unix.Close(fd)
			return none, fmt.Errorf("setsockopt: %w", err)
		}
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if err == nil {
			return serverBefore{fd, path}, nil
		}
		unix.Close(fd)
		switch err {
		case unix.ENOENT, unix.ECONNREFUSED: // nobody listens
		case unix.EAGAIN:
			return none, fmt.Errorf("connect to %s: the server there does not accept clients", path)
		default:
			return none, fmt.Errorf("connect to %s: %w", path, err)
		}
	}
	o.config.Log.Infof("-takeover: no server listens on %s", strings.Join(o.paths, ", "))
	return none, nil
}

// errCancelled is returned when a signal has come before we were the server.
var errCancelled = errors.New("cancelled by a signal")

// takeOver makes s the server in the place of the one before, and returns the sockets that are
// ours then. If none was there it does nothing.
func (b serverBefore) takeOver(s *server.Server, sockets []socket, end *ender) ([]socket, error) {
	if !b.there() {
		return sockets, nil
	}
	predecessor, err := s.TakeOver(b.connection, b.through)
	if err != nil {
		return sockets, fmt.Errorf("take over: %w", err)
	}
	for _, socket := range sockets {
		if !s.Listens(socket.path) {
			err := fmt.Errorf("another server than the one to take over from listens on %s", socket.path)
			predecessor.Refuse(err.Error())
			return sockets, err
		}
	}
	if end.asked.Load() { // taking over, only to end at once, would leave nobody
		predecessor.Refuse(errCancelled.Error())
		return sockets, errCancelled
	}
	if err := predecessor.Confirm(); err != nil {
		return sockets, fmt.Errorf("take over: %w", err)
	}
	for _, name := range s.Added() {
		if filepath.IsAbs(name) { // else it is systemd's, who removes it
			sockets = append(sockets, socket{path: name, fd: -1})
		}
	}
	claimSockets(sockets)
	return sockets, nil
}

const (
	// successorPatience is how long a successor may take. Its hand-over has a minute, see
	// internal/handover.
	successorPatience = 90 * time.Second
	// mainPIDPatience is how long to wait for systemd to take what it has to know.
	mainPIDPatience = 5 * time.Second
)

// successor is a process that is to take our place: this program's file, which may be another one
// by now, with the same arguments.
type successor struct {
	log      server.Logger
	service  *service
	patience time.Duration
	server   atomic.Pointer[server.Server] // whose place it is; nil: there is none yet
	process  atomic.Pointer[os.Process]    // nil: there is none
}

// replaceAtHangUp says whose place it is. From the first call on a successor is started at each SIGHUP.
func (n *successor) replaceAtHangUp(s *server.Server) {
	if n.server.Swap(s) == nil {
		n.listen()
	}
}

func (n *successor) listen() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP)
	go func() {
		for range signals {
			n.service.tell(n.service.notifier.Reloading("starting another process to take over"))
			if err := n.start(); err != nil {
				n.fail(err)
			}
		}
	}()
}

func (n *successor) start() error {
	if os.Getpid() == 1 {
		return errors.New("a container ends with its first process; start another container with -takeover")
	}
	if p := n.process.Load(); p != nil {
		return fmt.Errorf("process %d was started to take over and has not done so", p.Pid)
	}
	path, err := os.Executable()
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "successor")
	defer theirs.Close()
	if err := n.run(path, theirs); err != nil {
		unix.Close(pair[0])
		return err
	}
	n.server.Load().Introduce(pair[0])
	return nil
}

// run runs a program that is to ask to be our successor.
func (n *successor) run(path string, connection *os.File) error {
	command := exec.Command(path, os.Args[1:]...)
	command.Args[0] = os.Args[0]
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.ExtraFiles = []*os.File{connection} // descriptor 3
	command.Env = append(os.Environ(), predecessorVariable+"=3")
	if err := command.Start(); err != nil {
		return err
	}
	n.process.Store(command.Process)
	late := time.AfterFunc(n.patience, func() {
		if n.process.Load() == command.Process {
			n.log.Warningf("process %d was started to take over and has not done so within %v", command.Process.Pid, n.patience)
			command.Process.Kill()
		}
	})
	go func() {
		_ = command.Wait() // how it has ended is in the state
		late.Stop()
		if n.process.CompareAndSwap(command.Process, nil) {
			n.fail(fmt.Errorf("%s has ended: %v", path, command.ProcessState))
		}
	}()
	return nil
}

func (n *successor) fail(err error) {
	n.log.Warningf("no successor: %v; this process goes on", err)
	n.service.tell(n.service.notifier.Ready("goes on: no successor"))
}

// succeeded is called when a process has taken over. If it is the one that was started here, it is
// systemd's service now, and that is the last that systemd hears of us: else it would take the
// service for ended.
func (n *successor) succeeded(pid int) {
	p := n.process.Swap(nil)
	if p == nil || p.Pid != pid {
		return
	}
	// Others serve now: there is time.
	if err := again(mainPIDPatience, func() error { return n.service.notifier.MainPID(pid) }); err != nil {
		n.log.Warningf("systemd: %v", err)
	}
}
