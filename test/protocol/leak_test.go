package protocol

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/scache/scache/internal/master"
)

// Thousands of operations by clients that are killed in every state: when all
// are gone and all TTLs are over, the daemon has the descriptors it began with.
func TestNoDescriptorIsLeftBehind(t *testing.T) {
	t.Parallel()
	better(t, "stock spins, and keeps the client, when a reply finds no reader and a request is left unread")
	d := startWith(t, master.Config{
		Unprivileged: true, Chroot: true,
		Args: []string{"-o", "connection_cache_ttl_limit=3s", "-o", "ipc_timeout=1h"},
	})
	before := d.settled()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	pairs := newPairs(t, 20)
	const workers, rounds = 8, 400
	together(workers, func(w int) {
		rnd := rand.New(rand.NewPCG(seed, uint64(w)))
		for range rounds {
			c := d.dialOnly(t)
			if rnd.IntN(4) > 0 {
				c.want(announcement)
			}
			c.killedSomewhere(rnd, pairs)
			if rnd.IntN(3) > 0 {
				c.taken()
			}
			c.close()
		}
	})
	d.wantFDs(before)
	for i, p := range pairs {
		p.drop()
		if !p.closedWithin(patience) {
			t.Errorf("connection %d is still open somewhere", i)
		}
	}
	c := d.dial()
	c.inStep()
	for i := range 5 {
		c.wantNoEndp(fmt.Sprint("E", i))
	}
}

// killedSomewhere does a few things right, and then stops anywhere.
func (c *client) killedSomewhere(rnd *rand.Rand, pairs []*pair) {
	c.t.Helper()
	if c.seen == 0 { // the announcement is unread: so is all else
		c.send([]string{"", "requ", findEndp("E1"), saveDest("9", "D1", "DP", "E1")}[rnd.IntN(4)])
		return
	}
	name := func(s string) string { return fmt.Sprint(s, rnd.IntN(5)) }
	p := pairs[rnd.IntN(len(pairs))]
	for range rnd.IntN(6) {
		switch rnd.IntN(4) {
		case 0:
			c.save("3", name("E"), "EP", p.near)
		case 1:
			c.bind("3", name("D"), "DP", name("E"))
		case 2:
			if _, fd := c.find(name("E")); fd >= 0 {
				closeAll([]int{fd})
			}
		case 3:
			c.send(findDest(name("D")))
			if c.message()[1] == "0" {
				closeAll([]int{c.take()})
			}
		}
	}
	part := func(s string) string { return s[:rnd.IntN(len(s)+1)] }
	// Part of a message may be nothing: a write of nothing is none.
	some := func(s string) {
		if s = part(s); s != "" {
			c.send(s)
		}
	}
	switch rnd.IntN(7) {
	case 0:
		some(saveEndp("3", name("E"), "EP"))
	case 1:
		c.send(saveEndp("3", name("E"), "EP"))
		c.want(dummy)
	case 2:
		c.send(saveEndp("3", name("E"), "EP"))
		c.want(dummy)
		c.sendFD("\x00", p.near)
	case 3: // a stray descriptor on a part of a request
		if s := part(findEndp(name("E"))); s != "" {
			c.sendFD(s, p.near)
		}
	case 4:
		c.send(findEndp(name("E")))
	case 5:
		c.send(findDest(name("D")))
		if c.message()[1] == "0" {
			some(dummy)
		}
	case 6:
		c.send(findEndp(name("E")))
		if c.message()[1] == "0" {
			c.send(dummy)
			if rnd.IntN(2) == 0 {
				closeAll([]int{c.wantFD()})
			}
			some(dummy)
		}
	}
}
