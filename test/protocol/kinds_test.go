package protocol

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/lab"
)

// PROTOCOL.md, "The cache": descriptors of every kind are cached, and come back
// as the same open file.

func open(t testing.TB, name string, flags int) int {
	t.Helper()
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// descriptor takes a descriptor out of a net connection or file.
func descriptor(t testing.TB, c interface{ File() (*os.File, error) }) int {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

func tcpPair(t testing.TB) (near, far int) {
	t.Helper()
	dialed, accepted, err := lab.TCPPair()
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	defer accepted.Close()
	return descriptor(t, dialed), descriptor(t, accepted)
}

// talk sends something from one descriptor to the other.
func talk(t testing.TB, from, to int) {
	t.Helper()
	var b [10]byte
	if _, err := unix.Write(from, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(to, b[:]); err != nil || string(b[:n]) != "hello" {
		t.Fatalf("read %q, %v", b[:max(n, 0)], err)
	}
}

func TestDescriptorsOfEveryKind(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	tcp, _ := tcpPair(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer closeAll(pipe[:])
	eventfd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(eventfd)
	dir := t.TempDir()
	var own int // the client's own connection to the daemon
	c.control(func(fd int) (err error) {
		own, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	defer unix.Close(own)

	kinds := []struct {
		name string
		fd   int
	}{
		{"TCP", tcp},
		{"UDP", descriptor(t, udp)},
		{"listening", descriptor(t, l.(*net.TCPListener))},
		{"UNIX-domain", newPair(t).near},
		{"pipe, read", pipe[0]},
		{"pipe, write", pipe[1]},
		{"regular file", open(t, filepath.Join(dir, "file"), unix.O_RDWR|unix.O_CREAT)},
		{"file to append to", open(t, filepath.Join(dir, "file"), unix.O_WRONLY|unix.O_APPEND)},
		{"directory", open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY)},
		{"O_PATH", open(t, dir, unix.O_PATH)},
		{"/dev/null", open(t, "/dev/null", unix.O_RDWR)},
		{"eventfd", eventfd},
		{"the client's own", own},
	}
	for _, kind := range kinds {
		c.save("1000", "E", kind.name, kind.fd)
		c.save("1000", kind.name, "EP", kind.fd)
	}
	wantSame := func(fd, want int, kind string) {
		t.Helper()
		if same, err := sameOpenFile(fd, want); err != nil || !same {
			t.Errorf("%s: not the same open file, %v", kind, err)
		}
		unix.Close(fd)
	}
	for _, kind := range kinds {
		_, fd := c.find(kind.name)
		wantSame(fd, kind.fd, kind.name)
		name, fd := c.find("E")
		if name != kind.name {
			t.Fatalf("found %q, not %q", name, kind.name)
		}
		c.save("1000", "twice", kind.name, fd) // once more through the daemon
		wantSame(fd, kind.fd, kind.name)
	}
	for _, kind := range kinds {
		name, fd := c.find("twice")
		if name != kind.name {
			t.Fatalf("found %q, not %q", name, kind.name)
		}
		wantSame(fd, kind.fd, kind.name)
	}
}

// The daemon leaves alone what belongs to the open file: flags, options, what
// there is to read, the offset.
func TestOpenFileIsNotTouched(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	for _, flags := range []int{0, unix.O_NONBLOCK} {
		near, far := tcpPair(t)
		set := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		_, err := unix.FcntlInt(uintptr(near), unix.F_SETFL, flags)
		set(err)
		set(unix.SetsockoptInt(near, unix.IPPROTO_TCP, unix.TCP_NODELAY, 0))
		set(unix.SetsockoptInt(near, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0))
		set(unix.SetsockoptInt(near, unix.SOL_SOCKET, unix.SO_RCVBUF, 20000))
		set(unix.SetsockoptLinger(near, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 7}))
		options := func() (o [6]int) {
			t.Helper()
			get := func(level, option int) int {
				v, err := unix.GetsockoptInt(near, level, option)
				set(err)
				return v
			}
			fl, err := unix.FcntlInt(uintptr(near), unix.F_GETFL, 0)
			set(err)
			owner, err := unix.FcntlInt(uintptr(near), unix.F_GETOWN, 0)
			set(err)
			return [6]int{
				fl, owner,
				get(unix.IPPROTO_TCP, unix.TCP_NODELAY),
				get(unix.SOL_SOCKET, unix.SO_KEEPALIVE),
				get(unix.SOL_SOCKET, unix.SO_RCVBUF),
				get(unix.SOL_SOCKET, unix.SO_LINGER),
			}
		}
		before := options()
		_, err = unix.Write(far, []byte("220 before, "))
		set(err)
		c.save("1000", "E", "EP", near)
		c.inStep()
		_, err = unix.Write(far, []byte("421 meanwhile"))
		set(err)
		c.inStep()
		if now := options(); now != before {
			t.Errorf("while cached: flags and options %v, not %v", now, before)
		}
		_, fd := c.find("E")
		if now := options(); now != before {
			t.Errorf("after: flags and options %v, not %v", now, before)
		}
		var b [100]byte
		n, err := unix.Read(fd, b[:])
		if string(b[:max(n, 0)]) != "220 before, 421 meanwhile" {
			t.Errorf("read %q, %v", b[:max(n, 0)], err)
		}
		unix.Close(fd)
		talk(t, near, far)
	}
}

func TestFileOffsetIsNotTouched(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	file := open(t, filepath.Join(t.TempDir(), "file"), unix.O_RDWR|unix.O_CREAT)
	if _, err := unix.Write(file, []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Seek(file, 4, 0); err != nil {
		t.Fatal(err)
	}
	c.save("1000", "E", "EP", file)
	_, fd := c.find("E")
	defer unix.Close(fd)
	var b [3]byte
	if _, err := unix.Read(fd, b[:]); err != nil || string(b[:]) != "456" {
		t.Errorf("read %q, %v", b, err)
	}
	if at, err := unix.Seek(file, 0, 1); err != nil || at != 7 {
		t.Errorf("offset %d, %v", at, err)
	}
}

// A client's own connection, cached, does not keep the client alive nor harm
// anybody when the client goes.
func TestOwnConnectionCached(t *testing.T) {
	t.Parallel()
	d := start(t)
	before := d.settled()
	c := d.dial()
	c.control(func(fd int) error {
		c.send(saveEndp("1", "E", "EP"))
		c.want(dummy)
		c.sendFD("\x00", fd)
		c.want(statusOK)
		return nil
	})
	c.close()
	other := d.dial()
	other.inStep()
	other.close()
	d.wantFDs(before)
}
