package protocol

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A fileID tells open sockets and pipes apart, and files.
type fileID struct{ dev, ino uint64 }

func identify(fd int) (fileID, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return fileID{st.Dev, st.Ino}, err
}

// sameOpenFile tells whether two descriptors share one open file description.
func sameOpenFile(a, b int) (bool, error) {
	pid := uintptr(unix.Getpid())
	const kcmpFile = 0
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	if errno != 0 {
		return false, errno
	}
	return r == 0, nil
}

// A pair is a connection to be cached. near is what a client saves; far is the
// other host's end. It stays open, since a daemon is free to drop connections
// whose far end has hung up.
type pair struct {
	near, far int
	id        fileID
}

func newPair(t testing.TB) *pair {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{near: fds[0], far: fds[1]}
	if p.id, err = identify(p.near); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.drop()
		unix.Close(p.far)
	})
	return p
}

// drop closes our copy of the near end.
func (p *pair) drop() {
	if p.near >= 0 {
		unix.Close(p.near)
		p.near = -1
	}
}

// wantBack checks that a descriptor is this pair's near end, and closes it.
func (p *pair) wantBack(t testing.TB, fd int) {
	t.Helper()
	defer unix.Close(fd)
	if id, err := identify(fd); err != nil || id != p.id {
		t.Fatalf("another descriptor came back: %v, not %v, %v", id, p.id, err)
	}
}

// closed tells whether no copy of the near end is left anywhere.
func (p *pair) closed() bool { return p.closedWithin(0) }

func (p *pair) closedWithin(timeout time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(p.far), Events: unix.POLLRDHUP}}
	for end := time.Now().Add(timeout); ; {
		left := max(time.Until(end), 0)
		n, err := unix.Poll(fds, int(left.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		return n == 1
	}
}

// wantClosed waits until no copy of the near end is left.
func (p *pair) wantClosed(t testing.TB) {
	t.Helper()
	p.drop()
	if !p.closedWithin(patience) {
		t.Fatal("the connection has not been closed")
	}
}

// newPairs makes several, with properties P0, P1, ... to save them under.
func newPairs(t testing.TB, n int) []*pair {
	t.Helper()
	pairs := make([]*pair, n)
	for i := range pairs {
		pairs[i] = newPair(t)
	}
	return pairs
}

func prop(i int) string { return fmt.Sprintf("P%d", i) }
