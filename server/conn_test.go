package server

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

// Behind a descriptor nothing is looked for at once, but with a client that is known
// to go on there: found later, or at once, it is answered in order.
func TestBehindADescriptor(t *testing.T) {
	c := newHandClient(t)
	saved := string(proto.AppendStatus(nil, proto.OK))
	save := func(behind string) {
		t.Helper()
		c.say(proto.AppendSaveEndpoint(nil, 9, "E", "EP"), len(proto.DummyMessage))
		sendRights(t, c.fd, "\x00", c.fd)
		if behind != "" {
			if _, err := unix.Write(c.fd, []byte(behind)); err != nil {
				t.Fatal(err)
			}
		}
		c.conn.Ready(c.conn.fd, false)
	}
	for i, want := range []struct{ behind, once, later string }{
		{find("x"), saved, miss},
		{find("x") + find("y"), saved + miss + miss, ""},
		{"", saved, ""},
		{find("x"), saved, miss},
		{find("x"), saved + miss, ""},
	} {
		save(want.behind)
		if got := c.read(); got != want.once {
			t.Errorf("save %d: %q at once, want %q", i, got, want.once)
		}
		for range 2 { // the first may be too early, for it was busy
			c.conn.server.later.callNow()
		}
		c.conn.Ready(c.conn.fd, false)
		if got := c.read(); got != want.later {
			t.Errorf("save %d: %q later, want %q", i, got, want.later)
		}
	}
}

// A client is called again when it was quiet for a while, not when each of its events came
// soon after the other.
func TestABusyClientIsNotCalledAgain(t *testing.T) {
	c := newHandClient(t)
	server := c.conn.server
	for range 10 {
		c.say([]byte(find("x")+find("y")), 2*len(miss))
		c.say([]byte(find("z")), len(miss))
		server.later.callNow()
		if c.conn.unasked || !server.later.timer.Pending() {
			t.Fatalf("unasked %v, timer %v", c.conn.unasked, server.later.timer.Pending())
		}
	}
	server.timers.Stop(&server.later.timer.Timer)
	server.later.callNow()
	if !c.conn.unasked || server.later.timer.Pending() {
		t.Errorf("quiet: unasked %v, timer %v", c.conn.unasked, server.later.timer.Pending())
	}
}

// read returns what has come from the server.
func (c *handClient) read() string {
	n, err := c.wire.Receive(c.fd, c.buffer[:])
	if err != nil && err != unix.EAGAIN {
		c.tb.Fatal(err)
	}
	return string(c.buffer[:n])
}

// A client that is gone is not timed, whatever it has begun.
func TestAClientThatIsGoneIsNotTimed(t *testing.T) {
	c := newHandClient(t)
	c.say([]byte(find("x")[:10]), 0)
	if !c.conn.timer.Pending() {
		t.Fatal("it is not waited for")
	}
	unix.Shutdown(c.fd, unix.SHUT_WR)
	for range 2 {
		if c.conn.fd >= 0 {
			c.conn.Ready(c.conn.fd, true)
		}
	}
	if c.conn.fd >= 0 || c.conn.timer.Pending() {
		t.Errorf("descriptor %d, waited for: %v", c.conn.fd, c.conn.timer.Pending())
	}
}

// Who reads a long reply, however slowly, has its time anew with each piece.
func TestTimeToReadALongReply(t *testing.T) {
	c := newHandClient(t)
	server, cache := c.conn.server, c.conn.session.cache
	file, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	server.descriptors.open++
	cache.save(cache.store.Prepare([]byte("large"), make([]byte, 4<<20)), file, 60, nil)
	c.say([]byte(find("large")), 0)
	for range 2 {
		due := c.conn.timer.When()
		server.clock.now += 1000
		c.conn.Ready(c.conn.fd, false)
		if got := c.conn.timer.When(); got != due {
			t.Errorf("due at %d, and then at %d, and it has read nothing", due, got)
		}
		for n := 1; n > 0; { // all that is on its way
			n, _ = c.wire.Receive(c.fd, c.buffer[:])
		}
		c.conn.Ready(c.conn.fd, false)
		if len(c.conn.session.out) == 0 {
			t.Fatal("the reply is too short for this test")
		}
		if got := c.conn.timer.When(); got != due+1000 {
			t.Errorf("due at %d, want %d", got, due+1000)
		}
	}
}
