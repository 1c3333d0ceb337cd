package server

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/wire"
)

// descriptors counts what this process has open, and closes what clients have sent. close(2) can
// block, whatever the flags of the open file: a TCP socket with SO_LINGER until its data is
// acknowledged, a terminal or a network file until it is written. Sockets that are soon taken apart
// are closed at once, the rest by goroutines that live as long as there is something for them: one
// for sockets, so that what lingers keeps only its like waiting, and one for all else. So it has a
// lock.
type descriptors struct {
	open  int // but for those in a lane
	limit int // RLIMIT_NOFILE

	sockets, files lane
}

const (
	// spareDescriptors are for the log's socket and whatever else is opened now and then.
	spareDescriptors = 4
	// The reserve for clients is an eighth of the limit, within these.
	leastReserve, largestReserve = 4, 2048
)

// count counts what is open at the start.
func (d *descriptors) count() {
	d.readLimit()
	for fd := range min(d.limit, 1024) {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			d.open++
		}
	}
}

// readLimit reads the limit, which others can change (prlimit(2)).
func (d *descriptors) readLimit() {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		panic(err) // it has no way to fail
	}
	d.limit = int(min(limit.Cur, math.MaxInt32))
}

// scarce reports whether there may be no room for another one.
func (d *descriptors) scarce() bool { return d.inUse()+spareDescriptors >= d.limit }

// inUse is how many are open, or are being closed.
func (d *descriptors) inUse() int {
	return d.open + int(d.sockets.length.Load()) + int(d.files.length.Load())
}

// room is how many connections can be cached, with base descriptors open for other
// things and a reserve for clients.
func (d *descriptors) room(base int) int {
	reserve := min(max(d.limit/8, leastReserve), largestReserve)
	return max(d.limit-base-spareDescriptors-reserve, 1)
}

// settle waits, for a moment at most, until what is being closed is closed.
func (d *descriptors) settle() {
	for end := time.Now().Add(time.Second); d.inUse() > d.open && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// lane is descriptors that are closed one after the other.
type lane struct {
	mutex   sync.Mutex
	waiting []int
	running bool
	length  atomic.Int32 // of those that are not closed yet
}

// close closes what a client has sent.
func (d *descriptors) close(fd int) {
	socket, lingers := wire.Lingers(fd)
	switch {
	case !socket:
		d.open--
		d.files.close(fd)
	case lingers || slow(fd):
		d.open--
		d.sockets.close(fd)
	default:
		d.drop(fd)
	}
}

// drop closes, at once, a socket of which close(2) does not take long: because that was asked (see close),
// or because its client has it as well, so that this is not the last close.
func (d *descriptors) drop(fd int) {
	d.open--
	unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
}

// slow reports whether a socket takes long to be taken apart, even if it does not linger.
func slow(fd int) bool {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	switch {
	case err != nil, domain == unix.AF_INET, domain == unix.AF_INET6:
		return false
	case domain == unix.AF_UNIX:
		kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		return kind != unix.SOCK_STREAM || mayHold(fd)
	}
	return true // as AF_PACKET, which waits for all processors
}

// mayHold reports whether a stream socket of the UNIX domain may have descriptors in its queue: they
// are closed with it, thousands of them or one that lingers.
func mayHold(fd int) bool {
	unread, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	return err != nil || unread > 0
}

// closeClient closes a client's own socket, which does not linger.
func (d *descriptors) closeClient(fd int) {
	d.open--
	if mayHold(fd) {
		d.sockets.close(fd)
		return
	}
	unix.Close(fd)
}

func (l *lane) close(fd int) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.length.Add(1)
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
		l.length.Add(-1)
	}
}
