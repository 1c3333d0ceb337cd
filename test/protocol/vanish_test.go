package protocol

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// PROTOCOL.md, "Clients that vanish": at whatever byte a client goes, no
// descriptor is left behind.

func TestVanishAtEveryByte(t *testing.T) {
	t.Parallel()
	for _, x := range exchanges {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			if strings.Contains(x.name, "behind the descriptor") {
				better(t, "stock spins when its status finds no reader and a request is left unread")
			}
			d := start(t)
			before := d.settled()
			p := newPair(t)
			for n, step := range x.steps {
				for sent := 0; sent <= len(step.send); sent++ {
					for _, way := range []string{"read", "unread"} {
						c := d.dialFor(t)
						if x.setUp != nil {
							x.setUp(c, p)
						}
						c.steps(x.steps[:n], p)
						c.start(step, sent, p)
						if way == "read" {
							c.taken()
						}
						c.close()
					}
				}
			}
			// What may have been saved, or put back, is taken away, until
			// the daemon has seen the last of them go.
			c := d.dialFor(t)
			eventually(t, func() error {
				for {
					_, fd := c.find("E")
					if fd < 0 {
						break
					}
					p.wantBack(t, fd)
				}
				if n := d.fds(); n != before+1 {
					return fmt.Errorf("%d descriptors are left behind", n-before-1)
				}
				return nil
			})
			c.close()
			d.wantFDs(before)
			p.wantClosed(t)
		})
	}
}

// steps goes through whole steps of an exchange.
func (c *client) steps(steps []step, p *pair) {
	c.t.Helper()
	for _, s := range steps {
		c.start(s, len(s.send), p)
		c.want(s.want)
		if s.wantFD {
			p.wantBack(c.t, c.wantFD())
		}
	}
}

// start sends the first bytes of a step.
func (c *client) start(s step, bytes int, p *pair) {
	c.t.Helper()
	switch {
	case bytes == 0:
	case s.withFD:
		c.sendFD(s.send[:bytes], p.near)
	default:
		c.send(s.send[:bytes])
	}
}

// A descriptor that has arrived is saved, though nobody reads the reply.
func TestVanishAfterTheDescriptor(t *testing.T) {
	t.Parallel()
	d := start(t)
	p := newPair(t)
	for range 20 {
		c := d.dial()
		c.send(saveEndp("100", "E", "EP"))
		c.want(dummy)
		c.sendFD("\x00", p.near)
		c.close()
	}
	c := d.dial()
	for range 20 {
		var prop string
		fd := -1
		eventually(t, func() error {
			if prop, fd = c.find("E"); fd < 0 {
				return errNotYet
			}
			return nil
		})
		if prop != "EP" {
			t.Fatalf("property %q", prop)
		}
		p.wantBack(t, fd)
	}
	c.wantNoEndp("E")
}

// Found but not handed over: back into the cache, at its place, with the time
// it had left.
func TestVanishBeforeHandingOver(t *testing.T) {
	t.Parallel()
	d := start(t)
	before := d.settled()
	for _, request := range []string{findEndp("E"), findDest("D")} {
		for sent := range len(dummy) {
			first, second := newPair(t), newPair(t)
			c := d.dial()
			c.bind("100", "D", "DP", "E")
			c.save("100", "E", "P0", first.near)
			c.save("100", "E", "P1", second.near)
			other := d.dial()
			other.send(request)
			other.message()
			other.send(dummy[:sent])
			other.close()
			if stock {
				first.wantClosed(t)
			} else {
				d.wantFDs(before + 3) // the other is gone: it is back
				c.wantEndp("E", "P0", first)
			}
			c.wantEndp("E", "P1", second)
			c.wantNoEndp("E")
			c.close()
			d.wantFDs(before)
		}
	}
}

func TestPutBackKeepsItsTime(t *testing.T) {
	t.Parallel()
	better(t, "stock closes the connection")
	d := start(t)
	c, other := d.dial(), d.dial()
	p, q := newPair(t), newPair(t)
	began := time.Now()
	c.save("2", "E", "EP", p.near)
	other.send(findEndp("E"))
	other.want(endpHit("EP"))
	// It is put back before its TTL, and lives until then.
	other.close()
	p.wantClosed(t)
	if lived := time.Since(began); lived < 2*time.Second {
		t.Errorf("a TTL of 2 s lasted %v", lived)
	}
	// It would be put back after its TTL: it is closed.
	third := d.dial()
	c.save("1", "E", "EP", q.near)
	third.send(findEndp("E"))
	third.want(endpHit("EP"))
	time.Sleep(1300 * time.Millisecond)
	third.close()
	q.wantClosed(t)
	c.wantNoEndp("E")
}

// Handed over, final dummy missing: the daemon's copy is closed.
func TestVanishBeforeTheLastDummy(t *testing.T) {
	t.Parallel()
	d := start(t)
	for sent := range len(dummy) {
		p := newPair(t)
		c := d.dial()
		c.save("100", "E", "EP", p.near)
		c.send(findEndp("E"))
		c.want(endpHit("EP"))
		c.send(dummy)
		p.wantBack(t, c.wantFD())
		c.send(dummy[:sent])
		c.close()
		p.wantClosed(t)
		d.dial().wantNoEndp("E")
	}
}

// The descriptor has been sent, but not received.
func TestVanishWithTheDescriptorUnread(t *testing.T) {
	t.Parallel()
	d := start(t)
	p := newPair(t)
	c := d.dial()
	c.save("100", "E", "EP", p.near)
	c.send(findEndp("E"))
	c.want(endpHit("EP"))
	c.send(dummy)
	c.taken()
	c.close()
	d.dial().find("E") // free: it may have been put back
	p.drop()
}

// Two large requests and a close at once make stock spin for ever.
func TestVanishBehindLargeRequests(t *testing.T) {
	t.Parallel()
	better(t, "stock spins")
	d := start(t)
	before := d.settled()
	large := strings.Repeat("x", 60000)
	for range 20 {
		c := d.dial()
		c.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20) })
		c.send(findEndp(large) + findDest(large))
		c.send(saveDest("100", large, large, large) + saveEndp("100", large, large))
		c.close()
	}
	d.wantFDs(before)
	used := cpu(t, d)
	time.Sleep(500 * time.Millisecond)
	if used = cpu(t, d) - used; used > 250*time.Millisecond {
		t.Errorf("with no client the daemon used %v in half a second", used)
	}
	d.dial().inStep()
}

func TestConnectAndLeave(t *testing.T) {
	t.Parallel()
	d := start(t)
	before := d.settled()
	for i := range 500 {
		c := d.dialOnly(t)
		if i%2 == 0 {
			c.want(announcement)
		}
		c.close()
	}
	d.dial().inStep()
	d.wantFDs(before + 1)
}
