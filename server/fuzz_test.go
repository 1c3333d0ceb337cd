package server

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"

	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
	"github.com/scache/scache/timerwheel"
)

// A crowd is a few sessions on one small cache, driven by a fuzzer's bytes, with an
// account of every descriptor.
type crowd struct {
	t       *testing.T
	cache   *cache
	players []*member
	inside  map[int]bool // descriptors that are ours
	next    int          // the next descriptor
	acts    int
}

// member is a client and its session.
type member struct {
	session session
	in      input
	out     []byte
}

// pieces is what clients say: whole requests mostly, so that a fuzzer gets far.
var pieces = func() (pieces [][]byte) {
	names := []string{"", "a", "b"}
	for _, d := range names {
		pieces = append(pieces, []byte(find(d)), proto.AppendFindDestination(nil, d))
		for _, e := range names {
			pieces = append(pieces, proto.AppendSaveDestination(nil, 1+len(e), d, "p", e))
		}
		pieces = append(pieces, proto.AppendSaveEndpoint(nil, 1+2*len(d), d, "property"))
	}
	for _, admin := range [][]string{{"connections"}, {"bindings"}, {"all", ""}, {"endpoint", "a"}, {"destination", "b"}, {"pattern", "?"}} {
		op := proto.AdminFlush
		if len(admin) == 1 {
			op = proto.AdminList
		}
		pieces = append(pieces, proto.AppendAdmin(nil, op, admin...))
	}
	for _, limit := range []string{"size", "endpoint", "binding", "destination", "ttl"} {
		for _, value := range []string{"1", "5"} {
			pieces = append(pieces, proto.AppendAdmin(nil, proto.AdminSetLimit, "connection_cache_"+limit+"_limit", value))
		}
	}
	for _, op := range []proto.AdminOp{proto.AdminStatistics, proto.AdminDestinations, proto.AdminPause, proto.AdminResume, proto.AdminResume, proto.AdminLimits} {
		pieces = append(pieces, proto.AppendAdmin(nil, op))
	}
	for _, s := range []string{proto.DummyMessage, proto.DummyMessage, "\x00", "request", "request\x00", "find_endp\x00", "label\x00a\x00", "x"} {
		pieces = append(pieces, []byte(s))
	}
	return pieces
}()

func newCrowd(t *testing.T) *crowd {
	c := &crowd{t: t, inside: map[int]bool{}, next: 100}
	c.cache = pureCache(2, c.leaves)
	c.cache.limits = store.Limits{Connections: 4, PerEndpoint: 3, Bindings: 5, PerDestination: 2, Text: 60}
	c.cache.store.Limits = c.cache.limits
	c.cache.judge = newJudge(&Config{Policy: rules(t, `destination=a endpoint=b cache=no
		endpoint=a keep=2 order=lifo
		destination=b keep=1 ttl=1`)})
	for range 3 {
		c.players = append(c.players, c.newMember())
	}
	return c
}

func (c *crowd) newMember() *member {
	return &member{session: session{cache: c.cache}, in: input{fd: -1}}
}

// leaves holds the law: every descriptor leaves exactly once.
func (c *crowd) leaves(fd int) {
	if !c.inside[fd] {
		c.t.Fatalf("descriptor %d leaves, but is not inside", fd)
	}
	delete(c.inside, fd)
}

// act makes one step of what the bytes say, and returns the others.
func (c *crowd) act(data []byte) []byte {
	who, what := int(data[0]&3), int(data[0]>>2)
	data = data[1:]
	if who == len(c.players) {
		c.cache.now += timerwheel.Tick(what * 100)
		c.cache.store.Advance(c.cache.now)
		if l := c.cache.lowering; l != nil && c.cache.store.Continue(l, 1) {
			c.cache.lowering = nil
		}
		return data
	}
	m := c.players[who]
	switch {
	case what < 40: // one of the pieces, whole or in part
		piece := pieces[what%len(pieces)]
		if what >= 20 && len(data) > 0 { // more than there are numbers for
			piece, data = pieces[int(data[0])%len(pieces)], data[1:]
		}
		if len(data) > 0 && data[0] < 10 {
			piece, data = piece[:int(data[0])%(len(piece)+1)], data[1:]
		}
		c.deliver(m, piece, false)
	case what < 56:
		c.deliver(m, []byte{0}, true)
	case what < 60:
		m.session.end(&m.in)
		c.players[who] = c.newMember()
	case what < 62:
		m.session.lost()
		m.session.abandon()
		c.players[who] = c.newMember()
	default:
		m.session.abandon()
		c.players[who] = c.newMember()
	}
	return data
}

// deliver is a read of the server's, with a descriptor or without, and a portion of an
// errand.
func (c *crowd) deliver(m *member, piece []byte, descriptor bool) {
	m.in.bytes = append(slices.Clone(m.in.bytes), piece...)
	if descriptor && m.session.state == awaitingDescriptor {
		m.in.fd = c.next
		c.inside[c.next] = true
		c.next++
	}
	for m.session.step(&m.in) {
		if m.session.state == handingOver {
			m.session.handedOver()
		}
		if m.session.state == onErrand {
			break
		}
	}
	m.out = append(m.out, m.session.out...)
	m.session.out = nil
}

var wellFormed = regexp.MustCompile(`\A(dummy\x00\x00\x00|status\x00[012]\x00(property\x00[a-z]*\x00){0,2}\x00|` +
	`((status\x000|(connection|binding|destination)\x00[a-z]*)\x00([a-z0-9_]*\x00[a-z0-9_.]*\x00)*)?\x00)*\z`)

func (c *crowd) check() {
	size, limits := c.cache.store.Size(), c.cache.store.Limits
	if size.Bindings > limits.Bindings || size.Text > limits.Text {
		c.t.Fatalf("%+v is more than %+v", size, limits)
	}
	outside := 0
	for _, m := range c.players {
		if m.session.connection != nil && m.session.state != awaitingDescriptor {
			outside++
		}
		if len(m.out) > 0 && !wellFormed.Match(m.out) {
			c.t.Fatalf("sent %q", m.out)
		}
		m.out = m.out[:0]
	}
	// What is put back may be above the limit until the next save.
	if size.Connections > limits.Connections+len(c.players) {
		c.t.Fatalf("%+v is more than %+v", size, limits)
	}
	if size.Connections+outside != len(c.inside) {
		c.t.Fatalf("%d descriptors are inside, %d cached, %d on their way out", len(c.inside), size.Connections, outside)
	}
	if c.acts++; c.acts%128 == 0 {
		addUp(c.t, numbers(c.t, string(c.cache.appendStatistics(nil))))
	}
}

// run does all that the bytes say, and then everything ends.
func (c *crowd) run(data []byte) {
	for len(data) > 0 {
		data = c.act(data)
		c.check()
	}
	for _, m := range c.players {
		m.session.abandon()
	}
	c.cache.store.Clear()
	n := numbers(c.t, string(c.cache.appendStatistics(nil)))
	if addUp(c.t, n); n["connections_found"] != 0 {
		c.t.Fatalf("%d connections are on their way to nobody", n["connections_found"])
	}
	if size := c.cache.store.Size(); size != (store.Size{}) || len(c.inside) > 0 {
		c.t.Fatalf("at the end %+v is stored and %d descriptors are inside", size, len(c.inside))
	}
}

func FuzzSessions(f *testing.F) {
	f.Add([]byte{0, 160, 4, 3, 80, 8, 96, 200, 12, 255})
	f.Fuzz(func(t *testing.T, data []byte) { newCrowd(t).run(data) })
}

// The same with random bytes: what a fuzzer does in a second or two.
func TestCrowdOfSessions(t *testing.T) {
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 0))
		data := make([]byte, 300)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		c := newCrowd(t)
		c.run(data)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
