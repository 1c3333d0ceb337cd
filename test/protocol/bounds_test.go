package protocol

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The bounds of the cache, none of which stock has.

func startBounded(t *testing.T, parameters ...string) *daemon {
	t.Helper()
	t.Parallel()
	better(t, "stock has no bounds")
	var words []string
	for _, p := range parameters {
		words = append(words, "-o", "connection_cache_"+p)
	}
	return start(t, words...)
}

// What would expire first makes room, not what is the oldest.
func TestSizeLimit(t *testing.T) {
	d := startBounded(t, "size_limit=4")
	c := d.dial()
	pairs := newPairs(t, 7)
	for i, ttl := range []string{"100", "50", "60", "200", "70", "80", "300"} {
		c.save(ttl, "E", prop(i), pairs[i].near)
	}
	for _, i := range []int{1, 2, 4} {
		pairs[i].wantClosed(t)
	}
	for _, i := range []int{0, 3, 5, 6} {
		c.wantEndp("E", prop(i), pairs[i])
	}
	c.wantNoEndp("E")
	d.leave()
	if log := strings.Join(d.Texts(), "\n"); !strings.Contains(log, "closed: expired=0 evicted=3 hung-up=0 ") {
		t.Errorf("logged %q", log)
	}
}

func TestEndpointLimit(t *testing.T) {
	d := startBounded(t, "endpoint_limit=2")
	c := d.dial()
	pairs := newPairs(t, 5)
	for i, ttl := range []string{"100", "50", "100"} {
		c.save(ttl, "E", prop(i), pairs[i].near)
	}
	c.save("10", "F", prop(3), pairs[3].near)
	c.save("10", "F", prop(4), pairs[4].near)
	pairs[1].wantClosed(t)
	for _, i := range []int{0, 2} {
		c.wantEndp("E", prop(i), pairs[i])
	}
	for _, i := range []int{3, 4} {
		c.wantEndp("F", prop(i), pairs[i])
	}
}

func TestReuseOrder(t *testing.T) {
	d := startBounded(t, "reuse_order=lifo")
	c := d.dial()
	pairs := newPairs(t, 3)
	for i, p := range pairs {
		c.save("100", "E", prop(i), p.near)
	}
	c.bind("100", "D", "DP", "E")
	c.wantDest("D", "DP", prop(2), pairs[2])
	c.wantEndp("E", prop(1), pairs[1])
	c.wantEndp("E", prop(0), pairs[0])
}

func TestBindingLimits(t *testing.T) {
	d := startBounded(t, "binding_limit=3", "destination_limit=2")
	c := d.dial()
	p := newPair(t)
	bound := func(destination, property, endpoint string) {
		t.Helper()
		c.save("100", endpoint, "EP", p.near)
		c.wantDest(destination, property, "EP", p)
	}
	unbound := func(destination, endpoint string) {
		t.Helper()
		c.save("100", endpoint, "EP", p.near)
		c.wantNoDest(destination)
		c.wantEndp(endpoint, "EP", p)
	}
	// A destination's first goes, whatever its time.
	c.bind("300", "D", "1", "a")
	c.bind("100", "D", "2", "b")
	c.bind("100", "D", "3", "c")
	unbound("D", "a")
	bound("D", "2", "b")
	bound("D", "3", "c")
	// In all, what would expire first; a refresh counts.
	c.bind("200", "D", "2", "b")
	c.bind("150", "X", "4", "d")
	c.bind("170", "Y", "5", "e")
	unbound("D", "c")
	bound("D", "2", "b")
	bound("X", "4", "d")
	bound("Y", "5", "e")
}

func TestTextLimit(t *testing.T) {
	d := startBounded(t, "text_limit=1000")
	c := d.dial()
	pairs := newPairs(t, 4)
	for i, p := range pairs { // 301 bytes each
		c.save(fmt.Sprint(100-i), fmt.Sprint(i), strings.Repeat("x", 300), p.near)
	}
	pairs[2].wantClosed(t) // the one with the least time, when there was no room for another
	for _, i := range []int{0, 1, 3} {
		c.wantEndp(fmt.Sprint(i), strings.Repeat("x", 300), pairs[i])
	}
	large := strings.Repeat("x", 1001)
	c.send(saveEndp("100", "E", large))
	c.want(statusFail) // and no dummy
	c.send(saveDest("100", "D", large, "E"))
	c.want(statusFail)
	c.inStep()
}

// Who makes the daemon keep most goes; all others stay, and can tell who it was.
func TestClientMemoryLimit(t *testing.T) {
	d := startBounded(t, "client_memory_limit=1000000")
	neighbour := d.neighbour()
	modest, greedy := d.dial(), d.dial()
	modest.send("request\x00find_endp\x00label\x00" + strings.Repeat("m", 100_000))
	greedy.control(func(fd int) error {
		piece := []byte("request\x00find_endp\x00label\x00" + strings.Repeat("g", 10_000))
		for err := error(nil); err == nil || err == unix.EAGAIN || err == unix.EINTR; { // until it is disconnected
			_, err = unix.SendmsgN(fd, piece, nil, nil, unix.MSG_NOSIGNAL)
		}
		return nil
	})
	greedy.wantGone()
	neighbour.served()
	modest.send("\x00\x00")
	modest.want(endpMiss)
	culprit := regexp.MustCompile(fmt.Sprintf(`client \d+ \(pid %d, uid %d\): disconnected: \d+ bytes`, unix.Getpid(), unix.Getuid()))
	eventually(t, func() error {
		if log := strings.Join(d.Texts(), "\n"); !culprit.MatchString(log) {
			return fmt.Errorf("logged %q", log)
		}
		return nil
	})
}

// What a save_endp that goes no further makes us keep counts as well.
func TestStalledSavesAreClientMemory(t *testing.T) {
	d := startBounded(t, "client_memory_limit=10000000")
	modest := d.dial()
	modest.send(saveEndp("100", "E", strings.Repeat("m", 100_000)))
	modest.want(dummy)
	large := []byte(saveEndp("100", "E", strings.Repeat("g", 1_000_000)))
	for range 12 {
		d.dial().control(func(fd int) error {
			for rest := large; len(rest) > 0; {
				n, err := unix.SendmsgN(fd, rest, nil, nil, unix.MSG_NOSIGNAL)
				if err != nil && err != unix.EAGAIN && err != unix.EINTR {
					break // it is disconnected
				}
				rest = rest[max(n, 0):]
			}
			return nil
		})
	}
	eventually(t, func() error {
		if log := strings.Join(d.Texts(), "\n"); !strings.Contains(log, "disconnected: ") {
			return fmt.Errorf("logged %q", log)
		}
		return nil
	})
	p := newPair(t)
	modest.sendFD("\x00", p.near)
	modest.want(statusOK)
	modest.inStep()
}

// wantGone expects that the daemon has closed the connection.
func (c *client) wantGone() {
	c.t.Helper()
	c.control(func(fd int) error {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		for {
			n, err := unix.Poll(fds, int(patience.Milliseconds()))
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				c.t.Error("the client is connected still")
			}
			return err
		}
	})
}
