// Package wire is the system calls that move bytes and descriptors over UNIX-domain
// sockets, without blocking and without allocating.
package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Wire holds the arguments of the system calls, which are used again and again:
// x/sys/unix.Recvmsg allocates its addresses and control data anew each time. The
// zero Wire is ready for use; it must not be copied.
//
// RawSyscall is allowed because no call here can block (MSG_DONTWAIT): one that
// did would keep the Go scheduler from running anything else on this processor.
type Wire struct {
	header  unix.Msghdr
	bytes   unix.Iovec
	control rights
	nul     byte
	peeked  byte
	poll    unix.PollFd
	atOnce  unix.Timespec
}

// rights is a control message with one descriptor in it (unix(7), SCM_RIGHTS).
type rights struct {
	header unix.Cmsghdr
	fd     int32
	_      int32 // CMSG_ALIGN
}

// roomForOne is CMSG_LEN of one descriptor, not CMSG_SPACE: padding would be room
// for a second one. The kernel drops what does not fit, and so closes the surplus
// descriptors of a client that sends several.
var roomForOne = unix.CmsgLen(4)

// Receive reads into buffer, which must not be empty; n is 0 at the end of file.
// Descriptors that come with it are closed by the kernel. It stops reading behind a
// byte that carried one, so n may be less than what there is.
func (w *Wire) Receive(socket int, buffer []byte) (n int, err error) {
	r, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(socket), uintptr(unsafe.Pointer(&buffer[0])),
		uintptr(len(buffer)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

// ReceiveDescriptor is Receive with a descriptor, which is close-on-exec and owned by
// the caller, or -1. With a buffer of one byte it is that byte's; else it came with
// one of the last. lost says that a client sent more descriptors than this one, or one
// that we had no room for.
func (w *Wire) ReceiveDescriptor(socket int, buffer []byte) (n, fd int, lost bool, err error) {
	w.prepare(&buffer[0], len(buffer))
	n, err = w.call(unix.SYS_RECVMSG, socket, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, -1, false, err
	}
	fd = -1
	if int(w.header.Controllen) >= roomForOne &&
		w.control.header.Level == unix.SOL_SOCKET && w.control.header.Type == unix.SCM_RIGHTS {
		fd = int(w.control.fd)
	}
	return n, fd, w.header.Flags&unix.MSG_CTRUNC != 0, nil
}

// Sight is what a look at a descriptor tells.
type Sight struct {
	// Socket says that it is one; what is not is nothing of the below.
	Socket bool
	// Closed says that nothing more comes from its far end, which has closed its sending half,
	// or all of it, or reset it (POLLRDHUP: also if we ourselves have shut down the receiving
	// half, or the connection was refused).
	Closed bool
	// Unread says that there is something to read.
	Unread bool
}

// Look looks at a connection without taking anything from it. A socket that has just reported an
// error may not report it again.
func (w *Wire) Look(fd int) Sight {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&w.peeked)), 1,
		unix.MSG_DONTWAIT|unix.MSG_PEEK, 0, 0)
	switch errno {
	case unix.EAGAIN:
		return Sight{Socket: true}
	case unix.ENOTSOCK, unix.EBADF: // the latter for what was opened with O_PATH
		return Sight{}
	}
	// The end of file, or what may have it behind, or an error that may be
	// another's, as a connection's that was never made. POLLRDHUP is the one sign
	// that only a connection gives. It is a socket: others may block in poll(2).
	w.poll = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
	w.atOnce = unix.Timespec{}
	unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&w.poll)), 1, uintptr(unsafe.Pointer(&w.atOnce)), 0, 0, 0)
	return Sight{Socket: true, Closed: w.poll.Revents&unix.POLLRDHUP != 0, Unread: errno == 0 && n > 0}
}

// SendDescriptor sends one NUL byte that carries fd, which stays the caller's. It
// has been sent as a whole, or not at all.
func (w *Wire) SendDescriptor(socket, fd int) error {
	w.prepare(&w.nul, 1)
	w.control.header.Level = unix.SOL_SOCKET
	w.control.header.Type = unix.SCM_RIGHTS
	w.control.header.SetLen(roomForOne)
	w.control.fd = int32(fd)
	_, err := w.call(unix.SYS_SENDMSG, socket, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return err
}

func (w *Wire) prepare(buffer *byte, length int) {
	w.bytes.Base = buffer
	w.bytes.SetLen(length)
	w.header = unix.Msghdr{Iov: &w.bytes, Control: (*byte)(unsafe.Pointer(&w.control))}
	w.header.SetIovlen(1)
	w.header.SetControllen(roomForOne)
}

// call makes one of the system calls on w.header. None of them can be interrupted,
// because none sleeps. An Errno of less than 256 in an error is not allocated.
func (w *Wire) call(number uintptr, socket, flags int) (int, error) {
	n, _, errno := unix.RawSyscall(number, uintptr(socket), uintptr(unsafe.Pointer(&w.header)), uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Send writes what fits of buffer, which must not be empty, and returns how much
// that was.
func (w *Wire) Send(socket int, buffer []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(socket), uintptr(unsafe.Pointer(&buffer[0])),
		uintptr(len(buffer)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Accept takes a client, non-blocking and close-on-exec, from a listening socket
// that is non-blocking itself. x/sys/unix.Accept4 would allocate an address, which
// clients do not have.
func Accept(listener int) (int, error) {
	fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// Lingers reports whether fd is a socket, and whether close(2) of it may wait for
// data to be acknowledged.
func Lingers(fd int) (socket, lingers bool) {
	var linger unix.Linger
	size := uint32(unsafe.Sizeof(linger))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&linger)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0, linger.Onoff != 0
}
