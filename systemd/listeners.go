// Package systemd is what it takes to be a service of systemd: to take the listening
// sockets that it passes, to tell it how the service does, and to be watched by it.
// Nothing in it knows what the service serves. All of it is a few variables in the
// environment; where they are missing, somebody else has started us, and that is fine.
package systemd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstListener is the descriptor of the first socket that is passed (sd_listen_fds(3),
// SD_LISTEN_FDS_START).
const firstListener = 3

// unnamed is what sd_listen_fds_with_names(3) calls sockets without a name.
const unnamed = "unknown"

// Listener is a listening socket that systemd has made. Whoever asked for it owns
// FD; what is in the file system is systemd's, and is not to be unlinked.
type Listener struct {
	FD   int
	Name string // FileDescriptorName= of the socket unit, or that unit's own name
	Path string // what it is bound to, for the log
}

// Listeners returns the sockets that were passed to this process, close-on-exec, in the
// order of the socket units; none if LISTEN_PID names another process, or nobody. It
// removes the variables from the environment, so that a second call returns none, and
// no child takes the sockets for its own.
//
// What is passed and is no listening UNIX-domain stream socket is an error; the
// descriptors stay open then.
func Listeners() ([]Listener, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	names, named := os.LookupEnv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if pid != strconv.Itoa(os.Getpid()) || count == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(count, 10, 16)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("LISTEN_FDS=%s: not a number of sockets", count)
	}
	listeners := make([]Listener, n)
	for i := range listeners {
		listeners[i] = Listener{FD: firstListener + i, Name: unnamed}
		unix.CloseOnExec(listeners[i].FD)
	}
	if named {
		if err := name(listeners, names); err != nil {
			return nil, err
		}
	}
	for i := range listeners {
		if err := listeners[i].check(); err != nil {
			return nil, fmt.Errorf("descriptor %d, passed as %s: %w", listeners[i].FD, listeners[i].Name, err)
		}
	}
	return listeners, nil
}

func name(listeners []Listener, text string) error {
	names := strings.Split(text, ":")
	if len(names) != len(listeners) {
		return fmt.Errorf("LISTEN_FDNAMES=%s: %d names for %d sockets", text, len(names), len(listeners))
	}
	for i, name := range names {
		if name != "" {
			listeners[i].Name = name
		}
	}
	return nil
}

// check makes sure that clients can be accepted, and descriptors received from them.
func (l *Listener) check() error {
	for _, want := range []struct {
		option, value int
		otherwise     string
	}{
		{unix.SO_DOMAIN, unix.AF_UNIX, "not a UNIX-domain socket"},
		{unix.SO_TYPE, unix.SOCK_STREAM, "not a stream socket"},
		{unix.SO_ACCEPTCONN, 1, "not a listening socket"},
	} {
		value, err := unix.GetsockoptInt(l.FD, unix.SOL_SOCKET, want.option)
		if err != nil {
			return err
		}
		if value != want.value {
			return errors.New(want.otherwise)
		}
	}
	address, err := unix.Getsockname(l.FD)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	if address, ok := address.(*unix.SockaddrUnix); ok {
		l.Path = address.Name
	}
	return nil
}
