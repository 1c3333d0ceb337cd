package systemd

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Notifier tells systemd how the service does (sd_notify(3)). It never waits: what
// systemd does not take at once is an error. It may be used by several goroutines.
//
// A nil Notifier tells nobody.
type Notifier struct {
	fd      int
	address unix.SockaddrUnix
}

// NewNotifier returns a notifier for the socket that NOTIFY_SOCKET names, nil if it
// names none. The variable stays in the environment, for a process that takes our place.
func NewNotifier() (*Notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	// "@" is the abstract name space, and Linux has no other addresses of ours: those
	// with a family in front, as vsock:, are a virtual machine's.
	if path[0] != '/' && path[0] != '@' {
		return nil, fmt.Errorf("NOTIFY_SOCKET=%s: neither a path nor an abstract name", path)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return &Notifier{fd, unix.SockaddrUnix{Name: path}}, nil
}

// Ready says that the service serves, for the first time or again after Reloading. The
// text of this and of the others is what "systemctl status" shows.
func (n *Notifier) Ready(text string) error { return n.send("READY=1", status(text)) }

// Alive says how the service does, and feeds the watchdog, if there is one.
func (n *Notifier) Alive(text string) error { return n.send("WATCHDOG=1", status(text)) }

// Stopping says that the service has begun to end.
func (n *Notifier) Stopping(text string) error { return n.send("STOPPING=1", status(text)) }

// Reloading says that the service is about to take a new configuration, or a new
// program; Ready or MainPID has to follow.
func (n *Notifier) Reloading(text string) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("clock_gettime: %w", err)
	}
	return n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10), status(text))
}

// MainPID says that another process, started by this one, is the service from now on, and that
// it serves: in one message, because systemd does not listen to the other before it
// has read this, nor to this one afterwards (NotifyAccess=main).
func (n *Notifier) MainPID(pid int) error { return n.send("MAINPID="+strconv.Itoa(pid), "READY=1") }

func status(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

func (n *Notifier) send(assignments ...string) error {
	if n == nil {
		return nil
	}
	// By name each time, as sd_notify does: whoever listens there may be another one by now.
	message := strings.Join(assignments, "\n")
	if err := unix.Sendto(n.fd, []byte(message), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, &n.address); err != nil {
		return fmt.Errorf("notify %s: %s: %w", n.address.Name, assignments[0], err)
	}
	return nil
}
