// Package manager plays the service manager systemd for one "scache serve": it makes its
// sockets and passes them, reads its notifications, and is its journal.
package manager

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what to start, and what systemd's units would say of it. Only Binary is
// required.
type Config struct {
	Binary    string   // the program's file
	Arguments []string // behind "serve"
	Sockets   []Socket
	Watchdog  time.Duration // WatchdogSec=; 0: none
	Abstract  bool          // the socket for notifications has no path
	Journal   bool          // standard error is the journal
	Env       []string      // more of it; a later one wins
}

// Socket is a listening socket to pass.
type Socket struct {
	Path string
	Name string      // FileDescriptorName=
	User int         // SocketUser=
	Mode fs.FileMode // SocketMode=; 0: 0600
}

// Service is a running (or ended) service. Its end is the caller's to see to: Kill and Close.
type Service struct {
	cmd           *exec.Cmd
	directory     string
	notifications *net.UnixConn
	errors        *os.File
	log           *bufio.Reader
}

// starter gives the program the variables that hold its own process ID, as systemd does
// between fork and exec.
const starter = `export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$@"`

// Start starts a service. It does not wait for it to be ready: see Next.
func Start(config Config) (s *Service, err error) {
	s = &Service{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	// Not os.TempDir: a UNIX-domain socket's path has 108 bytes.
	if s.directory, err = os.MkdirTemp("/tmp", "scm."); err != nil {
		return s, err
	}
	if err := os.Chmod(s.directory, 0o755); err != nil {
		return s, err
	}
	notify, err := s.listenForNotifications(config.Abstract)
	if err != nil {
		return s, err
	}
	var theirs *os.File
	if s.errors, theirs, err = os.Pipe(); err != nil {
		return s, err
	}
	defer theirs.Close()
	s.log = bufio.NewReader(s.errors)
	env := []string{"PATH=" + os.Getenv("PATH"), "NOTIFY_SOCKET=" + notify}
	if config.Watchdog > 0 {
		env = append(env, fmt.Sprintf("WATCHDOG_USEC=%d", config.Watchdog.Microseconds()))
	}
	if config.Journal {
		var file unix.Stat_t
		if err := unix.Fstat(int(theirs.Fd()), &file); err != nil {
			return s, err
		}
		env = append(env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", file.Dev, file.Ino))
	}
	s.cmd = exec.Command("/bin/sh", append([]string{"-c", starter, "sh", config.Binary, "serve"}, config.Arguments...)...)
	s.cmd.Stderr = theirs
	if len(config.Sockets) > 0 {
		if s.cmd.ExtraFiles, err = listen(config.Sockets); err != nil {
			return s, err
		}
		var names []string
		for _, socket := range config.Sockets {
			names = append(names, socket.Name)
		}
		env = append(env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	s.cmd.Env = append(env, config.Env...)
	return s, s.cmd.Start()
}

func (s *Service) listenForNotifications(abstract bool) (name string, err error) {
	name = filepath.Join(s.directory, "notify")
	if abstract {
		name = "@" + name
	}
	s.notifications, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil && !abstract {
		err = os.Chmod(name, 0o777)
	}
	return name, err
}

func listen(sockets []Socket) (files []*os.File, err error) {
	for _, socket := range sockets {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket.Path, Net: "unix"})
		if err != nil {
			return files, err
		}
		listener.SetUnlinkOnClose(false)
		file, err := listener.File()
		listener.Close()
		if err != nil {
			return files, err
		}
		files = append(files, file)
		if err := errors.Join(os.Chmod(socket.Path, max(socket.Mode, 0o600)), os.Chown(socket.Path, socket.User, -1)); err != nil {
			return files, err
		}
	}
	return files, nil
}

// PID is the service's process.
func (s *Service) PID() int { return s.cmd.Process.Pid }

// Notification is what a service has said at a time, by name.
type Notification map[string]string

// Next waits for a notification; an error if there is none in time.
func (s *Service) Next(patience time.Duration) (Notification, error) {
	if err := s.notifications.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	message := make([]byte, 4096)
	n, err := s.notifications.Read(message)
	if err != nil {
		return nil, err
	}
	said := make(Notification)
	for line := range strings.Lines(string(message[:n])) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			return nil, fmt.Errorf("notification %q", message[:n])
		}
		said[name] = value
	}
	return said, nil
}

// Line reads a line of the service's log.
func (s *Service) Line() (string, error) { return s.log.ReadString('\n') }

// Signal sends a signal.
func (s *Service) Signal(number os.Signal) error { return s.cmd.Process.Signal(number) }

// Wait waits for the end, and returns the exit status, -1 if a signal was the end, and the
// rest of the log.
func (s *Service) Wait() (status int, log string, err error) {
	text, err := io.ReadAll(s.log)
	var exit *exec.ExitError
	if ended := s.cmd.Wait(); !errors.As(ended, &exit) {
		err = errors.Join(err, ended)
	}
	return s.cmd.ProcessState.ExitCode(), string(text), err
}

// Close kills the service if it runs, and removes every trace but its sockets.
func (s *Service) Close() {
	if s.cmd != nil {
		for _, file := range s.cmd.ExtraFiles {
			file.Close()
		}
		if s.cmd.Process != nil && s.cmd.ProcessState == nil {
			s.cmd.Process.Kill()
			s.cmd.Wait()
		}
	}
	if s.notifications != nil {
		s.notifications.Close()
	}
	if s.errors != nil {
		s.errors.Close()
	}
	os.RemoveAll(s.directory)
}
