package agent

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/wire"
)

// socket is what the agents do with a client's socket. What would block is
// reported as nothing done: there will be an event.
type socket struct{ wire.Wire }

// send sends all of b: what the agents send fits into an empty socket buffer.
func (s *socket) send(fd int32, b []byte) error {
	n, err := s.Send(int(fd), b)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if n != len(b) {
		return fmt.Errorf("send: only %d of %d bytes fit into the socket's buffer", n, len(b))
	}
	return nil
}

// receive returns 0 if nothing is there, and an error at the end of file.
func (s *socket) receive(fd int32, b []byte) (int, error) {
	n, err := s.Receive(int(fd), b)
	return received(n, err)
}

func received(n int, err error) (int, error) {
	switch {
	case err == unix.EAGAIN:
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("receive: %w", err)
	case n == 0:
		return 0, errClosed
	}
	return n, nil
}

// sendDescriptor sends a byte that carries fd.
func (s *socket) sendDescriptor(to, fd int32) error {
	if err := s.SendDescriptor(int(to), int(fd)); err != nil {
		return fmt.Errorf("send a descriptor: %w", err)
	}
	return nil
}

// receiveDescriptor receives one byte into b, and the descriptor on it; n is 0 if
// nothing is there.
func (s *socket) receiveDescriptor(from int32, b []byte) (fd int32, n int, err error) {
	n, got, _, err := s.ReceiveDescriptor(int(from), b[:1])
	if n, err = received(n, err); n == 0 {
		return -1, 0, err
	}
	if got < 0 || b[0] != 0 {
		return -1, n, fmt.Errorf("want a NUL byte with a descriptor, got byte %d with descriptor %d", b[0], got)
	}
	return int32(got), n, nil
}

// poller is an edge-triggered epoll instance.
type poller struct {
	fd      int
	events  [256]unix.EpollEvent
	timeout unix.Timespec
}

// key says whose event it is.
type key struct {
	client int32
	mail   int32 // 1: its mail connection's, not its own
}

func newPoller() (poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return poller{fd: fd}, err
}

// watch reports when fd becomes readable.
func (p *poller) watch(fd int32, k key) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: k.client, Pad: k.mail}
	return p.control(unix.EPOLL_CTL_ADD, fd, &event)
}

func (p *poller) unwatch(fd int32) error { return p.control(unix.EPOLL_CTL_DEL, fd, nil) }

func (p *poller) control(op int, fd int32, event *unix.EpollEvent) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(event)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("epoll_ctl: %w", errno)
	}
	return nil
}

// wait waits with the resolution of a nanosecond, which epoll_wait has not.
func (p *poller) wait(timeout time.Duration) (int, error) {
	p.timeout = unix.NsecToTimespec(int64(max(timeout, 0)))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)),
		uintptr(unsafe.Pointer(&p.timeout)), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("epoll_pwait2 (Linux 5.11 has it): %w", errno)
}

// dialer opens TCP connections to the sink.
type dialer struct {
	to     unix.SockaddrInet4
	from   unix.SockaddrInet4 // 127.0.0.1 is left to the kernel
	opened int
}

// dialsAtOnce is how many connections are opened before we look whether the sink
// keeps up: its listen queue must not overflow, for that costs a second each.
const dialsAtOnce = 256

func newDialer(to netip.AddrPort) dialer {
	loopback := [4]byte{127, 0, 0, 1}
	return dialer{
		to:   unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()},
		from: unix.SockaddrInet4{Addr: loopback},
	}
}

// dial opens a connection.
func (d *dialer) dial() (int32, error) {
	for {
		fd, err := d.attempt()
		switch {
		case err == unix.EADDRNOTAVAIL && d.from.Addr[3] < 254:
			d.from.Addr[3]++ // its ports are used up
			continue
		case err == unix.EMFILE:
			return -1, fmt.Errorf("a connection to the sink: %w (see ulimit -Hn)", err)
		case err != nil:
			return -1, fmt.Errorf("connect to the sink: %w", err)
		}
		if d.opened++; d.opened%dialsAtOnce == 0 {
			err = awaitReadable(fd) // its greeting
		}
		return int32(fd), err
	}
}

func (d *dialer) attempt() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if d.from.Addr[3] > 1 {
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err == nil {
			err = unix.Bind(fd, &d.from)
		}
	}
	if err == nil {
		err = unix.Connect(fd, &d.to)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func awaitReadable(fd int) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 10_000)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return errSilent
		default:
			return nil
		}
	}
}

// closeQuick closes what another process may still have open.
func closeQuick(fd int32) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// reset ends a connection so that it leaves no port behind in TIME_WAIT.
func reset(fd int32) {
	// Cannot fail; and if it did, the port would be busy for a minute.
	_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	closeQuick(fd)
}
