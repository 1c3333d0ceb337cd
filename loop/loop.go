// Package loop is the reactor: edge-triggered epoll and nothing else. It knows no
// protocol, no timer and no other goroutine.
//
// A [Handler] is registered once for a descriptor and removed once. What the kernel
// reports is a hint that something may be done; only system calls tell the truth.
// So a handler called without cause, or for an event of a descriptor that has been
// closed and its number used again, does no harm: it tries, and would block.
//
// The shape is that of Redis' ae_epoll.c: one table indexed by descriptor. Its
// known costs: the table has an entry for every number up to the highest in use
// (17 bytes each), and a descriptor with a lot to do is called once a turn, not in
// order of arrival.
package loop

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/table"
)

// Handler does what can be done on a descriptor without blocking.
type Handler interface {
	// Ready is called when the descriptor may have become readable or
	// writable. It must go on until that would block, or return true to be
	// called again in the next turn: there will be no further event for what
	// it leaves undone. hangup says that the other end has closed at least one
	// direction, so that a short read does not mean that nothing follows: the
	// end of file may.
	Ready(fd int, hangup bool) (again bool)
}

// eventsPerTurn bounds what one turn does before the clock is read again.
const eventsPerTurn = 64

// Loop is an epoll instance and its handlers. It must be used by one goroutine.
type Loop struct {
	epoll    int
	handlers table.Table[Handler] // nil: not registered
	queued   table.Table[bool]    // stands in again
	events   [eventsPerTurn]unix.EpollEvent
	reported int
	resting  bool  // the last wait was in vain: give the processor away
	alone    bool  // there is no monitor that would ask for it
	again    []int // descriptors whose handlers want another call
	spare    []int
}

// New returns a loop without handlers. Close ends it.
func New() (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &Loop{epoll: epoll, alone: strings.Contains(os.Getenv("GODEBUG"), "asyncpreemptoff=1")}, nil
}

// Close closes the epoll instance; the registered descriptors remain the callers'.
func (l *Loop) Close() error { return unix.Close(l.epoll) }

// interest is what is asked for at first: whatever can be read, and hang-ups.
// EPOLLHUP and EPOLLERR come unasked.
const interest = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// Add registers a descriptor, which remains the caller's. An event follows if it
// is readable already. The error is EPERM for what cannot be watched, as regular
// files.
func (l *Loop) Add(fd int, h Handler) error { return l.add(fd, h, interest) }

// Watch is Add for hang-ups only: what arrives is no event.
func (l *Loop) Watch(fd int, h Handler) error { return l.add(fd, h, interest&^unix.EPOLLIN) }

func (l *Loop) add(fd int, h Handler, events uint32) error {
	event := unix.EpollEvent{Events: events, Fd: int32(fd)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl add: %w", err)
	}
	*l.handlers.At(fd) = h
	return nil
}

// WantWrite asks for events when the descriptor becomes writable as well. It is
// for the rare descriptor that would block on writing: asking for it from the
// start would cost an event each time the other end reads.
func (l *Loop) WantWrite(fd int) error {
	event := unix.EpollEvent{Events: interest | unix.EPOLLOUT, Fd: int32(fd)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl mod: %w", err)
	}
	return nil
}

// Remove ends the registration. It must be called before the descriptor is closed
// or given away: the kernel's registration ends with the open file, which another
// process may hold. It does nothing to what is not registered.
func (l *Loop) Remove(fd int) {
	h := l.handlers.At(fd)
	if *h == nil {
		return
	}
	*h = nil
	// Cannot fail for what Add has registered.
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
}

// Again asks for a call in the next turn, as if Ready had returned true.
func (l *Loop) Again(fd int) {
	if queued := l.queued.At(fd); !*queued {
		*queued = true
		l.again = append(l.again, fd)
	}
}

// Wait sleeps until an event comes or the time-out is over, whichever is first,
// and not at all if a handler wants another call. A negative time-out is for
// ever; others are rounded up to the millisecond. It may return early.
func (l *Loop) Wait(timeout time.Duration) error {
	milliseconds := -1
	switch {
	case len(l.again) > 0:
		milliseconds = 0
	case timeout >= 0:
		const longest = 1 << 30 // about 12 days; the kernel takes a C int
		milliseconds = int(min((timeout+time.Millisecond-1)/time.Millisecond, longest))
	}
	var n int
	var err error
	if l.resting || l.alone {
		n, err = unix.EpollWait(l.epoll, l.events[:], milliseconds)
	} else {
		n, err = l.waitLightly(milliseconds)
	}
	l.resting = n <= 0 && milliseconds != 0
	if err == unix.EINTR {
		n, err = 0, nil // the caller computes the time-out anew
	}
	l.reported = max(n, 0)
	if err != nil {
		return fmt.Errorf("epoll_wait: %w", err)
	}
	return nil
}

// waitLightly waits by a system call that Go's scheduler does not see, so that this goroutine keeps its
// processor: to give it away and get it back costs more than a busy server's sleeps last. It is for
// ever, as a timer of the kernel's would cost as much: but when Go's monitor thread wants the processor
// back, which takes it 10 to 20 ms, it sends a signal, and the next wait is an ordinary one.
func (l *Loop) waitLightly(milliseconds int) (int, error) {
	if milliseconds > longestTimed {
		milliseconds = -1
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])),
		eventsPerTurn, uintptr(milliseconds), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// longestTimed is, in milliseconds, up to where a light wait has a time-out. It is well above what the
// monitor takes.
const longestTimed = 100

// Dispatch calls the handlers that wanted another call, then those that Wait has
// found ready: so many of either at most.
func (l *Loop) Dispatch() {
	again := l.again
	n := min(len(again), eventsPerTurn)
	l.again = append(l.spare[:0], again[n:]...) // the rest, in order, in later turns
	for _, fd := range again[:n] {
		*l.queued.At(fd) = false
		l.call(fd, false)
	}
	l.spare = again
	for i := range l.reported {
		event := &l.events[i]
		l.call(int(event.Fd), event.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0)
	}
}

func (l *Loop) call(fd int, hangup bool) {
	h := *l.handlers.At(fd)
	if h == nil {
		return // removed by another handler since it was reported
	}
	if h.Ready(fd, hangup) {
		l.Again(fd)
	}
}
