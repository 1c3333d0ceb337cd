package protocol

import (
	"fmt"
	"testing"
	"time"

	"github.com/scache/scache/internal/master"
)

// PROTOCOL.md, "no free descriptor in the server".

// startLimited starts a daemon that can open so many descriptors at most. It
// stays root: for all others the kernel bounds by the same limit how many
// descriptors are on their way between processes of a user, and the daemons of
// other tests, with higher limits, are that user's as well.
func startLimited(t testing.TB, n uint64) *daemon {
	t.Helper()
	return startWith(t, master.Config{
		Args:       []string{"-o", "connection_cache_ttl_limit=1h"},
		NoFileSoft: n, NoFileHard: n,
	})
}

// fillUp saves connections at E, more than there is room for, and returns how many there
// are; their properties are prop(first) and so on. All are the same socket: what counts
// is descriptors.
func (c *client) fillUp(p *pair, limit uint64) (first, n int) {
	c.t.Helper()
	saved := int(2 * limit)
	for i := range saved {
		c.save("1000", "E", prop(i), p.near)
	}
	// The first that is found tells how many were evicted.
	property, fd := c.find("E")
	if fd < 0 {
		c.t.Fatal("nothing is cached")
	}
	p.wantBack(c.t, fd)
	if _, err := fmt.Sscanf(property, "P%d", &first); err != nil {
		c.t.Fatalf("property %q: %v", property, err)
	}
	first++
	return first, saved - first
}

// At the limit what would expire first makes room, and no save fails.
func TestFullOfDescriptors(t *testing.T) {
	t.Parallel()
	better(t, "stock refuses to save, or dies")
	for _, limit := range []uint64{256, 128, 64, 32} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			d := startLimited(t, limit)
			p := newPair(t)
			c, other := d.dial(), d.dial()
			first, n := c.fillUp(p, limit)
			if n < int(limit)/4 {
				t.Errorf("a limit of %d holds no more than %d connections", limit, n)
			}
			c.save("1000", "E", "last", p.near) // there was room for it
			other.save("1", "F", "soon", p.near)
			other.save("1000", "E", "more", p.near) // in its place
			other.wantNoEndp("F")
			other.bind("1000", "D", "DP", "E")
			other.wantDest("D", "DP", prop(first+1), p)
			for i := first + 2; i < first+n; i++ {
				c.wantEndp("E", prop(i), p)
			}
			c.wantEndp("E", "last", p)
			c.wantEndp("E", "more", p)
			c.wantNoEndp("E")
			if _, again := c.fillUp(p, limit); again != n {
				t.Errorf("%d connections the first time, %d the second", n, again)
			}
		})
	}
}

// Clients that find no room wait; they cost the daemon nothing.
func TestClientsBeyondTheLimit(t *testing.T) {
	t.Parallel()
	better(t, "stock dies")
	for _, limit := range []uint64{256, 128, 64, 32} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			d := startLimited(t, limit)
			p := newPair(t)
			c := d.dial()
			first, n := c.fillUp(p, limit)
			waiting := make([]*client, limit)
			for i := range waiting {
				waiting[i] = d.dialOnly(t)
				waiting[i].send(findDest("x"))
			}
			c.inStep()
			used := cpu(t, d)
			time.Sleep(time.Second)
			if used = cpu(t, d) - used; used > 500*time.Millisecond {
				t.Errorf("in a second of waiting the daemon used %v", used)
			}
			c.inStep()
			for i := range n { // nothing cached has been lost
				c.wantEndp("E", prop(first+i), p)
			}
			// There is room now for some, and for others when these go.
			for _, w := range waiting {
				w.want(announcement + destMiss)
				w.close()
			}
			c.inStep()
		})
	}
}

// The same without anything cached.
func TestOnlyClients(t *testing.T) {
	t.Parallel()
	better(t, "stock dies")
	d := startLimited(t, 64)
	clients := make([]*client, 200)
	for i := range clients {
		clients[i] = d.dialOnly(t)
	}
	for i, c := range clients {
		c.want(announcement)
		c.inStep()
		if i%2 == 0 {
			c.send("request") // it goes in the middle of something
		}
		c.close()
	}
	d.dial().inStep()
}

// Descriptors in the wrong number while there is no room.
func TestTooManyDescriptorsWhenFull(t *testing.T) {
	t.Parallel()
	better(t, "stock leaks them")
	d := startLimited(t, 64)
	p := newPair(t)
	// Clients use up all there is.
	others := make([]*client, 64)
	for i := range others {
		others[i] = d.dialOnly(t)
	}
	c := others[0]
	c.want(announcement)
	many := make([]int, maxFDs)
	for i := range many {
		many[i] = p.near
	}
	for range 5 {
		c.send(saveEndp("1000", "E", "many"))
		c.want(dummy)
		c.sendFD("\x00", many...)
		c.wantOneOf(statusFail, statusOK)
		c.sendFD(findDest("x"), many...)
		c.want(destMiss)
	}
	for _, o := range others[1:] {
		o.close()
	}
	for range 5 { // now a part of them finds room
		for { // one may be there from before
			_, fd := c.find("E")
			if fd < 0 {
				break
			}
			p.wantBack(t, fd)
		}
		c.send(saveEndp("1000", "E", "many"))
		c.want(dummy)
		c.sendFD("\x00", many...)
		if c.wantOneOf(statusOK, statusFail) == statusOK {
			c.wantEndp("E", "many", p)
		}
		c.inStep()
	}
	c.fillUp(p, 64)
}

func cpu(t testing.TB, d *daemon) time.Duration {
	t.Helper()
	used, err := d.CPU()
	if err != nil {
		t.Fatal(err)
	}
	return used
}
