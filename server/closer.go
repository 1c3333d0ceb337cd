package server

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/wire"
)

// closer closes descriptors that clients have sent. close(2) can block, whatever
// the flags of the open file: a TCP socket with SO_LINGER until its data is
// acknowledged, a terminal or a network file until it is written. Sockets that do
// not linger are closed at once, the rest by a goroutine that lives as long as
// there is any. So this is the one place with a lock.
type closer struct {
	mutex   sync.Mutex
	waiting []int
	running bool
}

func (c *closer) close(fd int) {
	if wire.ClosesAtOnce(fd) {
		unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.waiting = append(c.waiting, fd)
	if !c.running {
		c.running = true
		go c.run()
	}
}

func (c *closer) run() {
	for {
		c.mutex.Lock()
		if len(c.waiting) == 0 {
			c.running = false
			c.mutex.Unlock()
			return
		}
		fd := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.mutex.Unlock()
		unix.Close(fd)
	}
}
