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

// fillUp saves connections until there is no room for another, and returns how
// many there are. It is always the same one: what counts is descriptors.
func (c *client) fillUp(p *pair, most int) int {
	c.t.Helper()
	for n := range most {
		c.send(saveEndp("1000", "E", prop(n)))
		c.want(dummy)
		c.sendFD("\x00", p.near)
		if c.wantOneOf(statusOK, statusFail) == statusFail {
			return n
		}
	}
	c.t.Fatalf("%d connections saved, and no end", most)
	return 0
}

func TestFullOfDescriptors(t *testing.T) {
	t.Parallel()
	for _, limit := range []uint64{256, 128, 64, 32} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			if limit < 256 {
				better(t, "stock uses the descriptors from 128 up for clients")
			}
			d := startLimited(t, limit)
			p := newPair(t)
			c, other := d.dial(), d.dial()
			n := c.fillUp(p, int(limit))
			if n < int(limit)/4 {
				t.Errorf("a limit of %d holds no more than %d connections", limit, n)
			}
			for range 3 { // nothing changes, nobody suffers
				other.send(saveEndp("1000", "E", "more"))
				other.want(dummy)
				other.sendFD("\x00", p.near)
				other.want(statusFail)
				other.inStep()
				c.inStep()
			}
			other.bind("1000", "D", "DP", "E")
			other.wantDest("D", "DP", prop(0), p)
			other.save("1000", "E", "last", p.near) // a find has made room
			for i := 1; i < n; i++ {
				c.wantEndp("E", prop(i), p)
			}
			c.wantEndp("E", "last", p)
			c.wantNoEndp("E")
			if again := c.fillUp(p, int(limit)); again != n {
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
			n := c.fillUp(p, int(limit))
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
				c.wantEndp("E", prop(i), p)
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
	c := d.dial()
	n := c.fillUp(p, 64)
	many := make([]int, maxFDs)
	for i := range many {
		many[i] = p.near
	}
	for range 5 {
		c.send(saveEndp("1000", "E", "many"))
		c.want(dummy)
		c.sendFD("\x00", many...)
		c.want(statusFail)
		c.sendFD(findDest("x"), many...)
		c.want(destMiss)
	}
	for i := range n {
		c.wantEndp("E", prop(i), p)
	}
	c.wantNoEndp("E")
	for range 5 { // now a part of them would find room
		c.send(saveEndp("1000", "E", "many"))
		c.want(dummy)
		c.sendFD("\x00", many...)
		if c.wantOneOf(statusOK, statusFail) == statusOK {
			c.wantEndp("E", "many", p)
		}
		c.inStep()
	}
	if again := c.fillUp(p, 64); again != n {
		t.Errorf("%d connections the first time, %d the second", n, again)
	}
}

func cpu(t testing.TB, d *daemon) time.Duration {
	t.Helper()
	used, err := d.CPU()
	if err != nil {
		t.Fatal(err)
	}
	return used
}
