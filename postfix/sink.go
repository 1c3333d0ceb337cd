package postfix

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// output takes a finished line or refuses it; it waits for a moment at most.
type output interface {
	send(line []byte, now time.Time) bool
	close()
}

// sink is one place where lines go to: a form and a way out. It counts what the
// way out refused, and says so as soon as it takes lines again.
type sink struct {
	format  format
	out     output
	line    []byte // reused
	dropped uint64 // lines refused so far
	told    uint64 // how many of them were mentioned
}

// write sends one record; false if it was dropped.
func (s *sink) write(r record) bool {
	if s.dropped > s.told {
		notice := record{when: r.when, sev: sevWarning, text: lostLines(s.dropped - s.told)}
		if !s.try(notice) {
			s.dropped++
			return false
		}
		s.told = s.dropped
	}
	if !s.try(r) {
		s.dropped++
		return false
	}
	return true
}

func (s *sink) try(r record) bool {
	s.line = s.format(s.line[:0], r)
	return s.out.send(s.line, r.when)
}

// reconnectPause is the least time between two attempts to find a log daemon
// that went away: an attempt costs system calls, and it may be gone for long.
const reconnectPause = time.Second

// fullPatience is how long a full log is waited for, in all, in each second. Its queue may hold no
// more than ten lines (net.unix.max_dgram_qlen), of all of Postfix. All clients wait as well.
const fullPatience = 20 * time.Millisecond

// logDaemon is a connection to syslogd(8) or postlogd(8). It is connected before
// the jail is entered, and kept, because the path may not exist inside.
type logDaemon struct {
	path   string
	fd     int       // -1: never connected
	stream bool      // no datagrams, but lines that NUL bytes end, as syslog(3) sends them then
	retry  time.Time // no attempt to reconnect before this time

	patience time.Duration // what is left of fullPatience
	refill   time.Time     // when that is renewed
}

// dialLogDaemon connects to a log socket. If there is none now, the first line
// tries again.
func dialLogDaemon(path string) *logDaemon {
	d := &logDaemon{path: path, fd: -1}
	d.connect()
	return d
}

func (d *logDaemon) connect() bool {
	err := d.connectAs(unix.SOCK_DGRAM)
	if err == unix.EPROTOTYPE {
		err = d.connectAs(unix.SOCK_STREAM)
	}
	return err == nil
}

func (d *logDaemon) connectAs(kind int) error {
	// Not to wait while the queue of a stream's listener is full.
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: d.path}); err != nil {
		unix.Close(fd)
		return err
	}
	d.close()
	d.fd, d.stream = fd, kind == unix.SOCK_STREAM
	return nil
}

func (d *logDaemon) close() {
	if d.fd >= 0 {
		unix.Close(d.fd)
		d.fd = -1
	}
}

// send gives the line to the log daemon. A socket that stays full refuses it; any other
// failure means that the daemon went away, and is worth an attempt to find the
// one that took its place.
func (d *logDaemon) send(line []byte, now time.Time) bool {
	err := d.try(line)
	for err == unix.EAGAIN && d.hasRoom(now) {
		err = d.try(line)
	}
	if err == nil {
		return true
	}
	if err == unix.EAGAIN || err == unix.ENOBUFS || now.Before(d.retry) {
		return false
	}
	d.retry = now.Add(reconnectPause)
	return d.connect() && d.try(line) == nil
}

// hasRoom waits for a socket that is full, as long as there is patience left.
func (d *logDaemon) hasRoom(now time.Time) bool {
	if !now.Before(d.refill) {
		d.patience, d.refill = fullPatience, now.Add(time.Second)
	}
	for d.patience >= time.Millisecond {
		begun := time.Now()
		poll := []unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(poll, int(d.patience/time.Millisecond))
		d.patience -= time.Since(begun)
		if err != unix.EINTR {
			return n > 0
		}
	}
	return false
}

func (d *logDaemon) try(line []byte) error {
	if d.stream {
		line = append(line, 0)
	}
	for {
		err := unix.Send(d.fd, line, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// enterRoot makes the path one of the new root directory's, if it lies inside.
// /dev/log does not, and is left alone: syslog(3) tries it in the jail as well.
func (d *logDaemon) enterRoot(root string) {
	if inside, ok := strings.CutPrefix(d.path, strings.TrimRight(root, "/")+"/"); ok {
		d.path = "/" + inside
	}
}

// stream is a descriptor that belongs to others too, as standard error does: its
// flags are left alone, and it is asked whether it takes a line before it is given
// one. A pipe that says yes has room for a page, and no line is longer than that.
type stream struct{ fd int }

func (s stream) send(line []byte, _ time.Time) bool {
	poll := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(poll, 0); err != nil || n == 0 || poll[0].Revents&unix.POLLOUT == 0 {
		return false
	}
	n, err := unix.Write(s.fd, line)
	return err == nil && n == len(line)
}

func (s stream) close() {} // not ours
