package agent

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wire makes the system calls of the measuring loop. None of them can block, so
// they need not tell the Go scheduler; none allocates. Its fields are their
// arguments; it must not be copied.
type wire struct {
	header  unix.Msghdr
	bytes   unix.Iovec
	control rights
	nul     byte
}

// rights is a control message with one descriptor in it (unix(7), SCM_RIGHTS).
type rights struct {
	header unix.Cmsghdr
	fd     int32
	_      int32 // CMSG_ALIGN
}

// send sends all of b: what the agents send fits into an empty socket buffer.
func (w *wire) send(socket int32, b []byte) error {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(socket), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return fmt.Errorf("send: %w", errno)
	}
	if int(n) != len(b) {
		return fmt.Errorf("send: only %d of %d bytes fit into the socket's buffer", n, len(b))
	}
	return nil
}

// receive returns 0 if nothing is there, and an error at the end of file.
func (w *wire) receive(socket int32, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(socket), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_DONTWAIT, 0, 0)
	return received(n, errno)
}

func received(n uintptr, errno unix.Errno) (int, error) {
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return 0, nil
	case errno != 0:
		return 0, fmt.Errorf("receive: %w", errno)
	case n == 0:
		return 0, errClosed
	}
	return int(n), nil
}

// sendDescriptor sends a byte that carries fd.
func (w *wire) sendDescriptor(socket, fd int32) error {
	w.prepare()
	w.control.header.Level, w.control.header.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	w.control.header.SetLen(unix.CmsgLen(4))
	w.control.fd = fd
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(socket), uintptr(unsafe.Pointer(&w.header)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if errno != 0 {
		return fmt.Errorf("send a descriptor: %w", errno)
	}
	return nil
}

// receiveDescriptor receives one byte and the descriptor on it; n is 0 if nothing
// is there.
func (w *wire) receiveDescriptor(socket int32) (fd int32, n int, err error) {
	w.prepare()
	r, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(socket), uintptr(unsafe.Pointer(&w.header)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	n, err = received(r, errno)
	if n == 0 {
		return -1, 0, err
	}
	if int(w.header.Controllen) < unix.CmsgLen(4) || w.nul != 0 {
		return -1, n, fmt.Errorf("want a NUL byte with a descriptor, got byte %d with %d bytes of control data", w.nul, w.header.Controllen)
	}
	return w.control.fd, n, nil
}

func (w *wire) prepare() {
	w.bytes.Base = &w.nul
	w.bytes.SetLen(1)
	w.header = unix.Msghdr{Iov: &w.bytes, Control: (*byte)(unsafe.Pointer(&w.control))}
	w.header.SetIovlen(1)
	w.header.SetControllen(unix.CmsgLen(4))
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
