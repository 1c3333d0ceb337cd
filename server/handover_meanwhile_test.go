package server

import (
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/scache/scache/proto"
	"github.com/scache/scache/timerwheel"
)

// busyServer is one that the test calls, turn by turn.
type busyServer struct {
	*Server
	*cache
	client *conn // as the server has it
	far    int   // as the client has it
}

func newBusyServer(t rapid.TB, config Config) *busyServer {
	s, err := New(config, Cache{})
	if err != nil {
		t.Fatal(err)
	}
	b := &busyServer{Server: s, cache: s.caches[0]}
	b.client, b.far = b.connect(t)
	return b
}

// connect connects a client, which is not announced the protocol.
func (b *busyServer) connect(t rapid.TB) (client *conn, far int) {
	near, far, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	client = newConn(b.Server, b.cache, near)
	if err := b.admit(client); err != nil {
		t.Fatal(err)
	}
	b.descriptors.open++
	return client, far
}

var (
	fewLabels = rapid.SampledFrom([]string{"a", "b", "c"})
	aTTL      = rapid.IntRange(1, 50)
)

func (b *busyServer) saveConnection(t *rapid.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil { // an open file of its own
		t.Fatal(err)
	}
	unix.Close(pipe[1])
	b.descriptors.open++
	connection := b.store.Prepare([]byte(fewLabels.Draw(t, "endpoint")), []byte("p"))
	b.save(connection, pipe[0], aTTL.Draw(t, "ttl"), nil)
}

func (b *busyServer) bind(t *rapid.T) {
	b.saveDestination(&proto.Request{
		Destination:         []byte(fewLabels.Draw(t, "destination")),
		DestinationProperty: fmt.Append(nil, rapid.IntRange(0, 9).Draw(t, "property")),
		Endpoint:            []byte(fewLabels.Draw(t, "endpoint")),
	}, aTTL.Draw(t, "ttl"), nil)
}

// take is a find that is carried through, or nearly.
func (b *busyServer) take(t *rapid.T) {
	connection := b.findEndpoint([]byte(fewLabels.Draw(t, "endpoint")))
	switch {
	case connection == nil:
	case rapid.Bool().Draw(t, "put back"):
		b.putBack(connection)
	default:
		b.taken(connection, true)
	}
}

// ask is a find that stays where it is until the next one, or for ever.
func (b *busyServer) ask(t *rapid.T) {
	say(b.far, find(fewLabels.Draw(t, "endpoint")))
	b.client.Ready(b.client.fd, false)
	if _, err := read(b.far, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
}

func (b *busyServer) expireSome(t *rapid.T) {
	b.Server.clock.now += timerwheel.Tick(rapid.IntRange(0, 5).Draw(t, "seconds")) * ticksPerSecond
	b.store.Advance(b.Server.clock.now)
}

func (b *busyServer) drop(t *rapid.T) {
	if binding, ok := b.store.FirstBinding([]byte(fewLabels.Draw(t, "destination"))); ok {
		b.store.DropBinding(binding)
	}
}

// Whatever comes, goes and changes while the successor is sent what is cached, it has what its
// predecessor has in the end, and neither keeps a descriptor.
func TestCacheChangesWhileItIsCopied(t *testing.T) {
	config := Config{TTLLimit: time.Hour, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1, HandOver: true}
	begin := len(descriptorsOfProcess(t))
	rapid.Check(t, func(t *rapid.T) {
		log := &logbook{}
		config.Log = log
		old := newBusyServer(t, config)
		for range rapid.IntRange(0, 150).Draw(t, "at first") {
			old.saveConnection(t)
			old.bind(t)
		}
		actions := []func(*rapid.T){old.saveConnection, old.bind, old.bind, old.take, old.take, old.ask, old.expireSome, old.drop}
		act := func(most int) {
			for range rapid.IntRange(0, most).Draw(t, "actions") {
				rapid.SampledFrom(actions).Draw(t, "action")(t)
			}
		}
		act(30)
		successor, theirs := old.connect(t)
		next, err := New(config, Cache{})
		if err != nil {
			t.Fatal(err)
		}
		successor.announce = true
		received := make(chan map[string]int, 1)
		go func() {
			defer close(received)
			predecessor, err := next.TakeOver(theirs, "")
			if err != nil {
				t.Errorf("take over: %v", err)
				return
			}
			received <- contents(next)
			if err := predecessor.Confirm(); err != nil {
				t.Errorf("confirm: %v", err)
			}
		}()
		for successor.session.state != succeeding {
			successor.Ready(successor.fd, false)
		}
		old.transfer = old.newTransfer(successor)
		for len(old.transfer.steps) > 0 && successor.fd >= 0 {
			act(8)
			old.transfer.proceed()
			runtime.Gosched()
		}
		want := contents(old.Server)
		maps.DeleteFunc(want, func(what string, _ int) bool { return strings.HasPrefix(what, "client in state succeeding") })
		for !old.succeeded && successor.fd >= 0 {
			old.transfer.proceed()
		}
		got := <-received
		for what, n := range want {
			if got[what] != n {
				t.Errorf("%s: %d received, %d sent", what, got[what], n)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d received, %d sent", len(got), len(want))
		}
		if <-received; !old.succeeded {
			t.Fatalf("it has not succeeded: %s", log.from(0))
		}
		unix.Close(theirs)
		unix.Close(old.far)
		for _, s := range []*Server{next, old.Server} {
			s.finish()
			unix.Close(s.wake)
		}
	})
	waitFor(t, func() bool { return len(descriptorsOfProcess(t)) <= begin })
}

// Clients are served between the records, up to the one that says that they are not.
func TestServesWhileItIsCopied(t *testing.T) {
	r := run(t, handsOver)
	client := fill(t, r)[7]
	fd := r.connect()
	defer unix.Close(fd)
	channel := askToSucceed(t, fd)
	defer channel.Discard()
	for records := 0; ; records++ {
		record, descriptors, err := channel.Receive()
		if err != nil {
			t.Fatalf("behind %d records: %v", records, err)
		}
		closeAll(descriptors)
		if record.Stopped != nil {
			if records < 10 { // of 300 connections and 300 bindings
				t.Errorf("%d records", records)
			}
			break
		}
		say(client, find("nothing"))
		expect(t, client, miss)
	}
}

// A successor whose limits are lower sees off what it has no room for, when it is the server, and
// not before: nobody hears of one that fails.
func TestTakeOverUnderLowerLimits(t *testing.T) {
	r := run(t, func(c *Config) { handsOver(c); c.Quit = true })
	client := r.dial()
	defer unix.Close(client)
	const saved, kept = 10, 3
	var fars []int
	for i := range saved {
		near, far := far(t)
		save(t, client, "50", fmt.Sprint(i), near)
		say(client, fmt.Sprintf("request\x00save_dest\x00ttl\x0050\x00label\x00d\x00property\x00p\x00label\x00%d\x00\x00", i))
		expect(t, client, "status\x000\x00\x00")
		fars = append(fars, far)
	}
	low := func(c *Config) { c.Limits.Connections, c.Limits.PerDestination = kept, kept }
	refusing := successorOf(r, low)
	fd := r.connect()
	predecessor, err := refusing.TakeOver(fd, r.path)
	if err != nil {
		t.Fatal(err)
	}
	predecessor.Refuse("for the test")
	refusing.abandonAll()
	unix.Close(refusing.wake)
	unix.Close(fd)
	for _, far := range fars {
		if n, _, err := unix.Recvfrom(far, make([]byte, 10), unix.MSG_DONTWAIT); err != unix.EAGAIN {
			t.Errorf("%d bytes, %v, of a successor that has failed", n, err)
		}
	}

	n := r.giveTo(successorOf(r, low))
	for i, far := range fars[:saved-kept] { // the first to expire
		expect(t, far, "QUIT\r\n")
		say(far, "221\r\n")
		if i == 0 {
			say(client, find("0"))
			expect(t, client, miss)
		}
	}
	n.settled()
	if count := counted(t, client); count["connections"] != kept || count["bindings"] != kept {
		t.Errorf("%d connections, %d bindings", count["connections"], count["bindings"])
	}
}

// What a client has begun to save goes on under a lower limit that has no room for it.
func TestTakeOverOfASaveUnderALowerTextLimit(t *testing.T) {
	r := run(t, handsOver)
	client := r.dial()
	defer unix.Close(client)
	say(client, "request\x00save_endp\x00ttl\x0050\x00label\x00e\x00property\x00"+strings.Repeat("x", 1000)+"\x00\x00")
	expect(t, client, proto.DummyMessage)
	r.giveTo(successorOf(r, func(c *Config) { c.Limits.Text = 100 }), func(s *Server) {
		for c := range s.clients {
			if c.session.connection == nil {
				t.Fatal("it was refused meanwhile")
			}
		}
	})
	near, _ := far(t)
	sendRights(t, client, "\x00", near)
	expect(t, client, "status\x000\x00\x00")
}
