package wire

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What Linux does to descriptors on their way.

func socketPair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return fds[0], fds[1]
}

// openFDs counts this process's descriptors.
func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func sendRights(t *testing.T, socket int, data string, fds ...int) {
	t.Helper()
	if err := unix.Sendmsg(socket, []byte(data), unix.UnixRights(fds...), nil, 0); err != nil {
		t.Fatal(err)
	}
}

func TestReceiveStopsBehindADescriptor(t *testing.T) {
	a, b := socketPair(t)
	file, _ := socketPair(t)
	unix.Write(b, []byte("abc"))
	sendRights(t, b, "\x00", file)
	unix.Write(b, []byte("def"))

	var w Wire
	buffer := make([]byte, 100)
	n, fd, lost, err := w.ReceiveDescriptor(a, buffer)
	if n != 4 || fd < 0 || lost || err != nil {
		t.Fatalf("%d bytes, descriptor %d, lost %v, %v; want 4 bytes and a descriptor", n, fd, lost, err)
	}
	defer unix.Close(fd)
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("not close-on-exec: %x, %v", flags, err)
	}
	if n, fd, _, err := w.ReceiveDescriptor(a, buffer); n != 3 || fd != -1 || err != nil {
		t.Errorf("%d bytes, descriptor %d, %v; want 3 bytes", n, fd, err)
	}
	if _, _, _, err := w.ReceiveDescriptor(a, buffer); err != unix.EAGAIN {
		t.Errorf("%v, want EAGAIN", err)
	}
	unix.Shutdown(b, unix.SHUT_WR)
	if n, fd, _, err := w.ReceiveDescriptor(a, buffer); n != 0 || fd != -1 || err != nil {
		t.Errorf("%d bytes, descriptor %d, %v; want the end of file", n, fd, err)
	}
}

// The same where no descriptor is asked for: it is closed, and there is more.
func TestPlainReceiveStopsBehindADescriptorToo(t *testing.T) {
	a, b := socketPair(t)
	file, _ := socketPair(t)
	before := openFDs(t)
	unix.Write(b, []byte("abc"))
	sendRights(t, b, "\x00", file)
	unix.Write(b, []byte("def"))
	var w Wire
	buffer := make([]byte, 100)
	for _, want := range []int{4, 3} {
		if n, err := w.Receive(a, buffer); n != want || err != nil {
			t.Errorf("%d bytes, %v; want %d", n, err, want)
		}
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestSurplusDescriptorsAreClosed(t *testing.T) {
	a, b := socketPair(t)
	file, _ := socketPair(t)
	many := make([]int, 253) // SCM_MAX_FD
	for i := range many {
		many[i] = file
	}
	before := openFDs(t)
	sendRights(t, b, "\x00", many...)
	var w Wire
	n, fd, lost, err := w.ReceiveDescriptor(a, make([]byte, 1))
	if n != 1 || fd < 0 || !lost || err != nil {
		t.Fatalf("%d bytes, descriptor %d, lost %v, %v", n, fd, lost, err)
	}
	unix.Close(fd)
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// The descriptor belongs to the first byte that is read of what it was sent with,
// so reading one byte only tells that it is this byte's.
func TestOneByteReadTakesItsDescriptor(t *testing.T) {
	a, b := socketPair(t)
	file, _ := socketPair(t)
	unix.Write(b, []byte("x"))
	sendRights(t, b, "\x00request", file)
	var w Wire
	one := make([]byte, 1)
	if n, fd, _, _ := w.ReceiveDescriptor(a, one); n != 1 || fd != -1 || one[0] != 'x' {
		t.Errorf("%d bytes, descriptor %d; want x alone", n, fd)
	}
	n, fd, _, _ := w.ReceiveDescriptor(a, one)
	if n != 1 || fd < 0 || one[0] != 0 {
		t.Fatalf("%d bytes, descriptor %d; want the NUL with it", n, fd)
	}
	unix.Close(fd)
}

func TestSendDescriptor(t *testing.T) {
	a, b := socketPair(t)
	file, peer := socketPair(t)
	var w Wire
	if err := w.SendDescriptor(a, file); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 100)
	n, fd, lost, err := w.ReceiveDescriptor(b, buffer)
	if n != 1 || buffer[0] != 0 || fd < 0 || lost || err != nil {
		t.Fatalf("%d bytes, descriptor %d, lost %v, %v", n, fd, lost, err)
	}
	defer unix.Close(fd)
	unix.Write(fd, []byte("hello"))
	if n, _ := unix.Read(peer, buffer); !bytes.Equal(buffer[:n], []byte("hello")) {
		t.Errorf("the other end reads %q", buffer[:n])
	}
	unix.Close(b)
	if err := w.SendDescriptor(a, file); err != unix.EPIPE {
		t.Errorf("%v, want EPIPE", err)
	}
}

func TestWireAllocatesNothing(t *testing.T) {
	a, b := socketPair(t)
	file, _ := socketPair(t)
	var w Wire
	buffer := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		w.Send(a, buffer[:10])
		w.ReceiveDescriptor(b, buffer)
		w.SendDescriptor(a, file)
		if _, fd, _, err := w.ReceiveDescriptor(b, buffer); err == nil {
			unix.Close(fd)
		}
		w.ReceiveDescriptor(b, buffer)
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
