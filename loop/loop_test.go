package loop

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// handler counts its calls; f tells what to do.
type handler struct {
	calls, hangups int
	f              func() (again bool)
}

func (h *handler) Ready(_ int, hangup bool) bool {
	h.calls++
	if hangup {
		h.hangups++
	}
	return h.f != nil && h.f()
}

func newLoop(t *testing.T) *Loop {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return fds[0], fds[1]
}

func add(t *testing.T, l *Loop, fd int, h Handler) {
	t.Helper()
	if err := l.Add(fd, h); err != nil {
		t.Fatal(err)
	}
}

// turn waits without sleeping, and dispatches.
func turn(t *testing.T, l *Loop) {
	t.Helper()
	if err := l.Wait(0); err != nil {
		t.Fatal(err)
	}
	l.Dispatch()
}

func TestOneCallForAnEdge(t *testing.T) {
	l := newLoop(t)
	a, b := pair(t)
	unix.Write(b, []byte("x")) // before Add: an event follows all the same
	h := &handler{}
	add(t, l, a, h)
	turn(t, l)
	turn(t, l) // unread, and not reported again
	if h.calls != 1 {
		t.Errorf("%d calls, want 1", h.calls)
	}
	unix.Write(b, []byte("y"))
	turn(t, l)
	if h.calls != 2 || h.hangups != 0 {
		t.Errorf("%d calls, %d hang-ups, want 2 and none", h.calls, h.hangups)
	}
	unix.Shutdown(b, unix.SHUT_WR)
	turn(t, l)
	if h.hangups != 1 {
		t.Errorf("%d hang-ups, want 1", h.hangups)
	}
}

func TestReadingByThePeerIsNoEvent(t *testing.T) {
	l := newLoop(t)
	a, b := pair(t)
	h := &handler{}
	add(t, l, a, h)
	unix.Write(a, []byte("reply"))
	unix.Read(b, make([]byte, 10))
	turn(t, l)
	if h.calls != 0 {
		t.Errorf("%d calls, want none", h.calls)
	}
}

func TestWantWrite(t *testing.T) {
	l := newLoop(t)
	a, b := pair(t)
	h := &handler{}
	add(t, l, a, h)
	chunk := make([]byte, 1<<16)
	for {
		if _, err := unix.Write(a, chunk); err == unix.EAGAIN {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.WantWrite(a); err != nil {
		t.Fatal(err)
	}
	turn(t, l)
	if h.calls != 0 {
		t.Errorf("%d calls while there is no room, want none", h.calls)
	}
	for {
		if n, _ := unix.Read(b, chunk); n <= 0 {
			break
		}
	}
	turn(t, l)
	if h.calls == 0 {
		t.Error("no call when there is room")
	}
}

func TestAgain(t *testing.T) {
	l := newLoop(t)
	a, b := pair(t)
	h := &handler{f: func() bool { return true }}
	add(t, l, a, h)
	unix.Write(b, []byte("x"))
	const turns = 10
	for range turns {
		// For ever: it must not sleep while a handler wants another call.
		if err := l.Wait(-1); err != nil {
			t.Fatal(err)
		}
		unix.Write(b, []byte("x")) // an event on top
		l.Dispatch()
		if len(l.again) != 1 {
			t.Fatalf("queued %d times", len(l.again))
		}
	}
	if want := 1 + 2*(turns-1); h.calls != want { // for an event; for itself and for an event
		t.Errorf("%d calls, want %d", h.calls, want)
	}
}

// A handler removes the other one, which is reported in the same turn, and a third
// gets its number: it must be none the worse for it.
func TestRemovedInTheSameTurn(t *testing.T) {
	l := newLoop(t)
	a1, b1 := pair(t)
	a2, b2 := pair(t)
	other := map[int]int{a1: a2, a2: a1}
	late := &handler{}
	remover := func(self int) *handler {
		return &handler{f: func() bool {
			l.Remove(other[self])
			add(t, l, other[self], late)
			return false
		}}
	}
	first, second := remover(a1), remover(a2)
	add(t, l, a1, first)
	add(t, l, a2, second)
	unix.Write(b1, []byte("x"))
	unix.Write(b2, []byte("x"))
	turn(t, l)
	if first.calls+second.calls != 1 {
		t.Errorf("a removed handler was called")
	}
	turn(t, l) // the newcomer's own event
	if late.calls == 0 {
		t.Error("the newcomer was not called")
	}
}

func TestRegularFileIsRefused(t *testing.T) {
	l := newLoop(t)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := l.Add(int(file.Fd()), &handler{}); !errors.Is(err, unix.EPERM) {
		t.Errorf("%v, want EPERM", err)
	}
}

// A wait may return early, when a signal comes; but not each time.
func TestWaitSleepsNoLessThanAsked(t *testing.T) {
	l := newLoop(t)
	for _, d := range []time.Duration{time.Nanosecond, time.Millisecond + 1, 3 * time.Millisecond} {
		var slept time.Duration
		for attempt := 0; slept < d && attempt < 20; attempt++ {
			start := time.Now()
			if err := l.Wait(d); err != nil {
				t.Fatal(err)
			}
			slept = time.Since(start)
		}
		if slept < d {
			t.Errorf("slept %v, want at least %v", slept, d)
		}
	}
}

// A wait for ever sleeps until something happens. It may return early, when a signal comes.
func TestWaitForEver(t *testing.T) {
	l := newLoop(t)
	a, b := pair(t)
	h := &handler{}
	add(t, l, a, h)
	time.AfterFunc(200*time.Millisecond, func() { unix.Write(b, []byte("x")) })
	waits := 0
	for ; h.calls == 0; waits++ {
		if err := l.Wait(-1); err != nil {
			t.Fatal(err)
		}
		l.Dispatch()
	}
	if waits > 20 {
		t.Errorf("%d waits for one event", waits)
	}
}

// Who waits for ever keeps neither the collector nor other goroutines from their work, even if there is
// one processor for all.
func TestWaitIsNoBurden(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	l := newLoop(t)
	a, b := pair(t)
	h := &handler{}
	add(t, l, a, h)
	done := make(chan error)
	go func() {
		var err error
		for h.calls == 0 && err == nil {
			err = l.Wait(-1)
			l.Dispatch()
		}
		done <- err
	}()
	for range 3 {
		time.Sleep(time.Millisecond) // now it waits
		runtime.GC()
	}
	unix.Write(b, []byte("x"))
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it has not come back")
	}
}

func TestNothingIsAllocated(t *testing.T) {
	l := newLoop(t)
	a, b := pair(t)
	buffer := make([]byte, 10)
	add(t, l, a, &handler{f: func() bool { unix.Read(a, buffer); return len(l.again) == 0 }})
	if n := testing.AllocsPerRun(100, func() {
		unix.Write(b, buffer)
		l.Wait(0)
		l.Dispatch()
	}); n != 0 {
		t.Errorf("%v allocations a turn, want none", n)
	}
}
