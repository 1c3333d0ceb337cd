package protocol

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// PROTOCOL.md, "Clients that stop": at none of these points anybody else waits.
// Postfix's own blocks on one client, and with it all others.

var large = strings.Repeat("x", 1<<20)

// stops has a client go on up to a point, and stop there. The names used are
// label's own.
var stops = []struct {
	name string
	stop func(c *client, label string, p *pair)
	// proceed goes on from there to the end of the exchange.
	proceed func(c *client, label string, p *pair)
	// holds says that the client holds up a connection, p, that was cached.
	holds bool
}{
	{"one byte of a request",
		func(c *client, label string, p *pair) { c.send("r") },
		func(c *client, label string, p *pair) { c.send(findEndp(label)[1:]); c.want(endpMiss) },
		false},
	{"half a request",
		func(c *client, label string, p *pair) { s := findEndp(label); c.send(s[:len(s)/2]) },
		func(c *client, label string, p *pair) { s := findEndp(label); c.send(s[len(s)/2:]); c.want(endpMiss) },
		false},
	{"all but the last NUL",
		func(c *client, label string, p *pair) { s := findEndp(label); c.send(s[:len(s)-1]) },
		func(c *client, label string, p *pair) { c.send("\x00"); c.want(endpMiss) },
		false},
	{"all but the last NUL of save_endp",
		func(c *client, label string, p *pair) { s := saveEndp("100", label, "EP"); c.send(s[:len(s)-1]) },
		func(c *client, label string, p *pair) {
			c.send("\x00")
			c.want(dummy)
			c.sendFD("\x00", p.near)
			c.want(statusOK)
		},
		false},
	{"awaiting the descriptor",
		func(c *client, label string, p *pair) { c.send(saveEndp("100", label, "EP")); c.want(dummy) },
		func(c *client, label string, p *pair) { c.sendFD("\x00", p.near); c.want(statusOK) },
		false},
	{"awaiting the first dummy",
		func(c *client, label string, p *pair) {
			c.save("100", label, "EP", p.near)
			c.send(findEndp(label))
			c.want(endpHit("EP"))
		},
		func(c *client, label string, p *pair) { p.wantBack(c.t, c.take()) },
		true},
	{"half of the first dummy",
		func(c *client, label string, p *pair) {
			c.save("100", label, "EP", p.near)
			c.send(findEndp(label))
			c.want(endpHit("EP"))
			c.send(dummy[:4])
		},
		func(c *client, label string, p *pair) {
			c.send(dummy[4:])
			p.wantBack(c.t, c.wantFD())
			c.send(dummy)
		},
		true},
	{"awaiting the final dummy",
		func(c *client, label string, p *pair) {
			c.save("100", label, "EP", p.near)
			c.send(findEndp(label))
			c.want(endpHit("EP"))
			c.send(dummy)
			p.wantBack(c.t, c.wantFD())
		},
		func(c *client, label string, p *pair) { c.send(dummy) },
		false},
	{"half of the final dummy",
		func(c *client, label string, p *pair) {
			c.save("100", label, "EP", p.near)
			c.send(findEndp(label))
			c.want(endpHit("EP"))
			c.send(dummy)
			p.wantBack(c.t, c.wantFD())
			c.send(dummy[:4])
		},
		func(c *client, label string, p *pair) { c.send(dummy[4:]) },
		false},
	{"a reply of 1 MiB unread",
		func(c *client, label string, p *pair) {
			c.save("100", label, large, p.near)
			c.send(findEndp(label))
			c.taken()
		},
		func(c *client, label string, p *pair) {
			c.want(endpHit(large))
			p.wantBack(c.t, c.take())
		},
		true},
}

func TestStoppedClientHoldsUpNobody(t *testing.T) {
	t.Parallel()
	better(t, "stock blocks")
	d := start(t)
	for i, point := range stops {
		t.Run(point.name, func(t *testing.T) {
			t.Parallel()
			label := fmt.Sprint("stopped ", i)
			p := newPair(t)
			connected, stopped := d.dialFor(t), d.dialFor(t)
			point.stop(stopped, label, p)
			othersAreServed(t, d, connected, label)
			point.proceed(stopped, label, p)
			stopped.inStep()
		})
	}
}

// othersAreServed shows that who is connected and who connects is served, and
// that connections and bindings expire.
func othersAreServed(t *testing.T, d *daemon, connected *client, name string) {
	t.Helper()
	label := "others " + name
	short := newPair(t)
	connected.save("1", label+" short", "EP", short.near)
	connecting := d.dialFor(t)
	defer connecting.close()
	for _, c := range []*client{connected, connecting} {
		p := newPair(t)
		c.bind("100", label, "DP", label)
		c.save("100", label, "EP", p.near)
		c.wantDest(label, "DP", "EP", p)
		c.inStep()
	}
	short.wantClosed(t)
	connected.wantNoEndp(label + " short")
}

// A client that sends requests and reads no reply: the daemon stops to read
// from it when the socket is full, and forgets nothing.
func TestRepliesUnreadUntilTheSocketIsFull(t *testing.T) {
	t.Parallel()
	better(t, "stock blocks")
	d := start(t)
	connected, stopped := d.dial(), d.dial()
	sent := sendUntilFull(stopped, findEndp("x"))
	rss, err := d.RSS()
	if err != nil || rss > 100<<20 {
		t.Errorf("memory %d, %v", rss, err)
	}
	othersAreServed(t, d, connected, "full")
	for range sent {
		stopped.want(endpMiss)
	}
	stopped.inStep()
}

// sendUntilFull sends requests until there is no room for another, neither here
// nor after a while, and returns how many.
func sendUntilFull(c *client, request string) (sent int) {
	c.t.Helper()
	c.control(func(fd int) error {
		for quiet := 0; quiet < 50; {
			n, err := unix.SendmsgN(fd, []byte(request), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			switch {
			case err == unix.EAGAIN:
				quiet++
				time.Sleep(2 * time.Millisecond)
			case err != nil:
				return err
			case n != len(request):
				return fmt.Errorf("sent %d bytes of %d", n, len(request))
			default:
				quiet = 0
				if sent++; sent > 1000000 {
					return fmt.Errorf("a million requests, and no end")
				}
			}
		}
		return nil
	})
	return sent
}

// Many stopped clients at once, one at each point.
func TestManyStoppedClients(t *testing.T) {
	t.Parallel()
	better(t, "stock blocks")
	d := start(t)
	before := d.settled()
	connected := d.dial()
	var stopped []*client
	for round := range 10 {
		for i, point := range stops {
			if strings.Contains(point.name, "MiB") && round > 0 {
				continue
			}
			c := d.dial()
			point.stop(c, fmt.Sprint(round, " ", i), newPair(t))
			stopped = append(stopped, c)
		}
	}
	othersAreServed(t, d, connected, "many")
	for _, c := range stopped {
		c.close()
	}
	connected.close()
	// All the connections that were held are back.
	held := 0
	c := d.dial()
	d.wantFDs(before + 1 + 10*2 + 1)
	for round := range 10 {
		for i, point := range stops {
			if _, fd := c.find(fmt.Sprint(round, " ", i)); fd >= 0 {
				closeAll([]int{fd})
				held++
			} else if point.holds && !strings.Contains(point.name, "MiB") {
				t.Errorf("%s: lost", point.name)
			}
		}
	}
	c.close()
	d.wantFDs(before)
}

// At ipc_timeout the stopped client is disconnected, and what it held up is
// back in the cache.
func TestStoppedClientIsDisconnected(t *testing.T) {
	t.Parallel()
	better(t, "stock blocks until then, and may spin after it")
	d := start(t, "-o", "ipc_timeout=2s")
	before := d.settled()
	for i, point := range stops {
		t.Run(point.name, func(t *testing.T) {
			t.Parallel()
			label := fmt.Sprint("stopped ", i)
			p := newPair(t)
			c, other := d.dialFor(t), d.dialFor(t)
			began := time.Now()
			point.stop(c, label, p)
			if strings.Contains(point.name, "unread") {
				// What was sent before may still be read.
				c.waitHangUp()
			} else {
				c.wantEOF()
			}
			if lasted := time.Since(began); lasted < 2*time.Second {
				t.Errorf("disconnected after %v", lasted)
			}
			if !point.holds {
				other.wantNoEndp(label)
				return
			}
			_, fd := other.find(label)
			if fd < 0 {
				t.Fatal("the connection has been lost")
			}
			p.wantBack(t, fd)
		})
	}
	t.Cleanup(func() { d.wantFDs(before) })
}

// waitHangUp waits until the daemon has closed the connection, reading nothing.
func (c *client) waitHangUp() {
	c.t.Helper()
	c.control(func(fd int) error {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		for {
			n, err := unix.Poll(fds, int(patience.Milliseconds()))
			if err == unix.EINTR {
				continue
			}
			if err == nil && n == 0 {
				err = fmt.Errorf("not disconnected in %v", patience)
			}
			return err
		}
	})
}

func TestUnreadingClientIsDisconnected(t *testing.T) {
	t.Parallel()
	better(t, "stock blocks until then, and may spin after it")
	d := start(t, "-o", "ipc_timeout=2s")
	c := d.dial()
	began := time.Now()
	sendUntilFull(c, findEndp("x"))
	c.waitHangUp()
	if lasted := time.Since(began); lasted < 2*time.Second {
		t.Errorf("disconnected after %v", lasted)
	}
	d.dial().inStep()
}

// To be idle between requests is not to stop.
func TestIdleClientIsNotDisconnected(t *testing.T) {
	t.Parallel()
	d := start(t, "-o", "ipc_timeout=1s")
	silent, idle, found := d.dial(), d.dial(), d.dial()
	p := newPair(t)
	idle.save("100", "E", "EP", p.near)
	idle.bind("100", "D", "DP", "E")
	found.wantDest("D", "DP", "EP", p)
	time.Sleep(3 * time.Second)
	silent.inStep()
	idle.inStep()
	found.inStep()
}

// Who goes on slowly, but within the time at each point, is not cut off.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	d := start(t, "-o", "ipc_timeout=4s")
	p := newPair(t)
	c := d.dial()
	pause := func() { time.Sleep(500 * time.Millisecond) }
	c.send(saveEndp("100", "E", "EP"))
	c.want(dummy)
	pause()
	c.sendFD("\x00", p.near)
	c.want(statusOK)
	pause()
	c.send(findEndp("E"))
	c.want(endpHit("EP"))
	pause()
	c.send(dummy)
	p.wantBack(t, c.wantFD())
	pause()
	c.send(dummy)
	c.inStep()
}
