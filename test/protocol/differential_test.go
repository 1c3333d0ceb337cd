package protocol

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/internal/master"
	"golang.org/x/sys/unix"
)

// The same random conversation with Postfix's daemon and with ours: every reply
// and every connection that comes back must be the same.

func TestDifferential(t *testing.T) {
	t.Parallel()
	stock := stockScache(t)
	seed := uint64(time.Now().UnixNano())
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			differ(t, stock, seed+uint64(i))
		})
	}
}

// both is one client of each daemon, which do the same.
type both struct{ stock, ours *client }

func differ(t *testing.T, stock string, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	var daemons [2]*daemon
	for i, file := range []string{stock, binary} {
		daemons[i] = startWith(t, master.Config{
			Binary:       file,
			Unprivileged: true, Chroot: true,
			Args: []string{"-o", "connection_cache_ttl_limit=1d"},
		})
	}
	clients := make([]both, 3)
	dial := func(i int) { clients[i] = both{daemons[0].dial(), daemons[1].dial()} }
	for i := range clients {
		dial(i)
	}
	pairs := newPairs(t, 12)
	var steps []string
	defer func() {
		if t.Failed() {
			t.Logf("seed %d; the last steps:\n%s", seed, strings.Join(steps[max(0, len(steps)-15):], "\n"))
		}
	}()
	for range 700 {
		n := rnd.IntN(len(clients))
		s := randomStep(rnd, len(pairs))
		steps = append(steps, fmt.Sprintf("client %d: %s", n, s))
		a, b := s.do(clients[n].stock, pairs), s.do(clients[n].ours, pairs)
		if !slices.Equal(a, b) {
			t.Fatalf("stock: %q\nours:  %q", a, b)
		}
		if rnd.IntN(40) == 0 {
			steps = append(steps, fmt.Sprintf("client %d: leaves", n))
			clients[n].stock.close()
			clients[n].ours.close()
			dial(n)
		}
	}
	// What is left must be the same as well, statistics included.
	for _, label := range names {
		for more := true; more; {
			s := diffStep{request: findEndp(label)}
			steps = append(steps, s.String())
			a, b := s.do(clients[0].stock, pairs), s.do(clients[0].ours, pairs)
			if !slices.Equal(a, b) {
				t.Fatalf("stock: %q\nours:  %q", a, b)
			}
			more = len(a) > 4
		}
	}
	var reports [2][]string
	for i, d := range daemons {
		d.leave()
		for _, r := range d.statistics() {
			reports[i] = append(reports[i], r...)
		}
	}
	if !slices.Equal(reports[0], reports[1]) {
		t.Errorf("statistics: stock %q\nours %q", reports[0], reports[1])
	}
}

// A diffStep is a request, sent in one write, with what follows it where the
// server asks for more.
type diffStep struct {
	request string
	pair    int  // to be saved
	without bool // a byte without a descriptor instead
	glued   bool // both dummies in one write
}

func (s diffStep) String() string {
	return fmt.Sprintf("%q, connection %d, without %v, glued %v", s.request, s.pair, s.without, s.glued)
}

// do goes through the step and returns all that the server said; a connection
// is told as its number.
func (s diffStep) do(c *client, pairs []*pair) []string {
	c.t.Helper()
	c.send(s.request)
	reply := c.message()
	switch {
	case reply[0] == "dummy":
		if s.without {
			c.send("\x00")
		} else {
			c.sendFD("\x00", pairs[s.pair].near)
		}
		reply = append(reply, c.message()...)
	case len(reply) > 2 && reply[1] == "0":
		if s.glued {
			c.send(dummy + dummy)
		} else {
			c.send(dummy)
		}
		fd := c.wantFD()
		if !s.glued {
			c.send(dummy)
		}
		id, err := identify(fd)
		if err != nil {
			c.t.Fatal(err)
		}
		unix.Close(fd)
		which := slices.IndexFunc(pairs, func(p *pair) bool { return p.id == id })
		reply = append(reply, fmt.Sprint("connection ", which))
	}
	return reply
}

var (
	names = []string{"", "a", "b", "A", "a\n"}
	props = []string{"", "p", "q"}
	ttls  = []string{"1000", "5000", "86400", "099999", "2147483647", "400000000"}
	wrong = []string{"0", "-1", "", "abc", "5x", "5 ", "1.5", "0x10", "1e3", "2147483648", "4294967296", "99999999999999999999"}
)

func randomStep(rnd *rand.Rand, pairs int) diffStep {
	pick := func(s []string) string { return s[rnd.IntN(len(s))] }
	s := diffStep{pair: rnd.IntN(pairs), without: rnd.IntN(12) == 0, glued: rnd.IntN(3) == 0}
	ttl := pick(ttls)
	if rnd.IntN(15) == 0 {
		ttl = pick(wrong)
	}
	var fields []string
	switch n := rnd.IntN(10); {
	case n < 3:
		fields = []string{"request", "save_endp", "ttl", ttl, "label", pick(names), "property", pick(props)}
	case n < 5:
		fields = []string{"request", "find_endp", "label", pick(names)}
	case n < 7:
		fields = []string{"request", "save_dest", "ttl", ttl, "label", pick(names), "property", pick(props), "label", pick(names)}
	default:
		fields = []string{"request", "find_dest", "label", pick(names)}
	}
	if rnd.IntN(10) == 0 {
		fields = spoil(rnd, fields)
	}
	s.request = strings.Join(fields, "\x00") + "\x00\x00"
	return s
}

// spoil makes a request malformed, or not quite. What it leaves is still made
// of names and values, does not say "request" again, and is one message.
func spoil(rnd *rand.Rand, fields []string) []string {
	attributes := len(fields) / 2
	at := 2 * rnd.IntN(attributes)
	switch rnd.IntN(5) {
	case 0: // an attribute is missing
		if at == 0 {
			return fields
		}
		return slices.Delete(fields, at, at+2)
	case 1: // an unknown one, or one too many, possibly behind the last
		at += 2
		return slices.Insert(fields, at, []string{"other", "label", "ttl", "property"}[rnd.IntN(4)], "x")
	case 2: // two change places
		if at == 0 || at+4 > len(fields) {
			return fields
		}
		fields[at], fields[at+2] = fields[at+2], fields[at]
		fields[at+1], fields[at+3] = fields[at+3], fields[at+1]
		return fields
	case 3: // a name is not quite right
		if at > 0 {
			fields[at] = []string{"Label", "label ", "labe", "TTL", "properties"}[rnd.IntN(5)]
		}
		return fields
	default: // neither is the request
		fields[1] = []string{"", "find", "FIND_DEST", "save_endp ", "size"}[rnd.IntN(5)]
		return fields
	}
}
