package server

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/wire"
)

// closer closes descriptors that clients have sent. close(2) can block, whatever
// the flags of the open file: a TCP socket with SO_LINGER until its data is
// acknowledged, a terminal or a network file until it is written. Sockets that do
// not linger are closed at once, the rest by goroutines that live as long as there
// is something for them: one for sockets, so that what lingers keeps only its like
// waiting, and one for all else. So this is the one place with a lock.
type closer struct {
	sockets, files lane
}

// lane is descriptors that are closed one after the other.
type lane struct {
	mutex   sync.Mutex
	waiting []int
	running bool
}

// close closes what a client has sent.
func (c *closer) close(fd int) {
	socket, lingers := wire.Lingers(fd)
	switch {
	case !socket:
		c.files.close(fd)
	case lingers:
		c.sockets.close(fd)
	default:
		unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	}
}

// closeClient closes a client's own socket. It does not linger, but what it has
// sent and nobody has read can be a descriptor that does, and is closed with it.
func (c *closer) closeClient(fd int) {
	if unread, err := unix.IoctlGetInt(fd, unix.SIOCINQ); err != nil || unread > 0 {
		c.sockets.close(fd)
		return
	}
	unix.Close(fd)
}

func (l *lane) close(fd int) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.waiting = append(l.waiting, fd)
	if !l.running {
		l.running = true
		go l.run()
	}
}

func (l *lane) run() {
	for {
		l.mutex.Lock()
		if len(l.waiting) == 0 {
			l.running = false
			l.mutex.Unlock()
			return
		}
		fd := l.waiting[0]
		l.waiting = l.waiting[1:]
		l.mutex.Unlock()
		unix.Close(fd)
	}
}
