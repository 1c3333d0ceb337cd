package protocol

import (
	"fmt"
	"strings"
	"testing"
)

// Endless messages, and endlessly many.

// endless is what has no end, until it gets one after all: then the answer is a
// refusal in the shape of the reply, or silence if it was no request.
var endless = []struct{ name, head, piece, tail, reply string }{
	{"value", "request\x00find_endp\x00label\x00", "x", "\x00\x00", endpBad},
	{"value with a good beginning", "request\x00find_dest\x00label\x00E\x00property\x00", "x", "\x00\x00", destBad},
	{"name", "request\x00save_dest\x00", "x", "\x00\x00\x00", statusBad},
	{"list of attributes", "request\x00save_endp\x00", "ttl\x001\x00", "\x00", statusBad},
	{"list behind the last one wanted", "request\x00find_endp\x00label\x00E\x00", "more\x00\x00", "\x00", endpBad},
	{"name of a request", "request\x00", "x", "\x00\x00", statusBad},
	{"first name", "", "x", "\x00\x00\x00", ""},
	{"other first attribute", "status\x00", "x", "\x00\x00", ""},
	{"dummy", "dummy\x00", "x", "\x00\x00", ""},
	{"list behind a dummy", "dummy\x00\x00", "dummy\x00\x00", "\x00", ""},
}

func TestEndlessMessages(t *testing.T) {
	t.Parallel()
	better(t, "room for a message is not unlimited")
	d := start(t)
	d.besieged(func(n *neighbour) {
		for i, e := range endless {
			f := d.flood(e.head, e.piece)
			enough := int64(8 << 20)
			if i == 0 { // enough to be seen in the memory, if it is kept
				enough = 64 << 20
			}
			for n.served(); f.length() < enough; {
				n.served()
			}
			// What follows the end is in step again.
			if have, want := f.end(e.tail+findDest("x")), len(e.reply+destMiss); have != int64(want) {
				t.Errorf("%s: %d bytes of replies, not %d", e.name, have, want)
			}
		}
		// Such a message in the place of a dummy: it is not one.
		c, p := d.dial(), newPair(t)
		c.save("100", "E", "EP", p.near)
		c.send(findEndp("E"))
		c.want(endpHit("EP"))
		c.send("other\x00")
		for range 8 {
			c.send(large)
			n.served()
		}
		c.send("\x00\x00")
		c.wantEndp("E", "EP", p)
		c.close()
	})
	d.wantPeak(2 * maxMessage)
}

// maxMessage is the longest message that is understood.
const maxMessage = 4<<20 - 1<<16

// All of them at once, and the clients go without an end.
func TestEndlessMessagesCutShort(t *testing.T) {
	t.Parallel()
	better(t, "stock blocks")
	d := start(t)
	d.besieged(func(n *neighbour) {
		var floods []*flood
		for _, e := range endless {
			floods = append(floods, d.flood(e.head, e.piece))
		}
		for n.served(); floods[0].length() < 8<<20; {
			n.served()
		}
		for i, f := range floods {
			// An end of file in mid-message is answered as its end would be.
			if have, want := f.end(""), len(endless[i].reply); have != int64(want) && have != 0 {
				t.Errorf("%s: %d bytes of replies, neither 0 nor %d", endless[i].name, have, want)
			}
		}
	})
	d.wantPeak(int64(len(endless)) * maxMessage)
}

// The longest message that is understood for certain, and one that is not: where
// between them the limit is depends on how it arrives.
func TestLongestMessage(t *testing.T) {
	t.Parallel()
	better(t, "room for a message is not unlimited")
	d := start(t)
	d.besieged(func(n *neighbour) {
		c, p := d.dial(), newPair(t)
		empty := len(saveEndp("100", "", "EP"))
		longest := strings.Repeat("x", maxMessage-empty)
		c.save("100", longest, "EP", p.near)
		c.wantEndp(longest, "EP", p)
		c.send(saveEndp("100", longest+large, "EP"))
		c.want(statusBad)
		c.inStep()
		c.close()
	})
}

// Floods of messages that are short, by several clients at once: each message is
// answered, and meanwhile a neighbour gets its turns.
func TestFloods(t *testing.T) {
	t.Parallel()
	better(t, "stock answers only the first request of a write")
	for name, f := range map[string]struct{ piece, reply string }{
		"NULs":              {"\x00", ""},
		"dummies":           {dummy, ""},
		"dummies with more": {"dummy\x00\x00more\x00\x00\x00", ""},
		"no requests":       {"x\x00\x00\x00", ""},
		"look-ups":          {findEndp("x"), endpMiss},
		"bad requests":      {message("request", "none"), statusBad},
		"bad look-ups":      {message("request", "find_dest"), destBad},
		"refreshes":         {saveDest("1", "D", "DP", "E"), statusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			d.t = t
			d.besieged(func(n *neighbour) {
				floods := make([]*flood, 5)
				for i := range floods {
					floods[i] = d.flood("", f.piece)
				}
				for range 10 {
					n.served()
				}
				for i, flood := range floods {
					replies := flood.end("")
					if want := flood.length() / int64(len(f.piece)) * int64(len(f.reply)); replies != want {
						t.Errorf("flood %d: %d bytes of replies, not %d", i, replies, want)
					}
				}
			})
			d.wantPeak(5 * (1 << 18)) // a client's unread replies and input
			// Whoever did it has not filled the log.
			if log := d.Texts(); len(log) > 100 {
				t.Errorf("%d lines in the log", len(log))
			}
		})
	}
}

// Requests and no reply read, by clients that go in the middle of it.
func TestFloodsUnread(t *testing.T) {
	t.Parallel()
	better(t, "stock blocks")
	d := start(t)
	d.besieged(func(n *neighbour) {
		for round := range 3 {
			var clients []*client
			for i := range 20 {
				c := d.dialOnly(t)
				request := []string{findEndp("x"), findDest(fmt.Sprint(i)), message("request", "none")}[i%3]
				sendAll(c, strings.Repeat(request, 5000))
				clients = append(clients, c)
			}
			n.served()
			for i, c := range clients {
				if i%2 == round%2 {
					c.shutdown()
				}
			}
			n.served()
			for _, c := range clients {
				c.close()
			}
		}
	})
	d.wantPeak(20 * (1 << 18))
}

// sendAll sends what there is room for.
func sendAll(c *client, s string) (sent int) {
	c.t.Helper()
	c.control(func(fd int) error {
		for sent < len(s) {
			n, err := sendNow(fd, s[sent:])
			if err != nil {
				return nil
			}
			sent += n
		}
		return nil
	})
	return sent
}
