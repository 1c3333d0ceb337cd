package server

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

// A request that is too long goes on where it was: what has been looked at of it is not looked at
// again, or a part of it could be taken for another request.
func TestTakeOverInARequestThatIsTooLong(t *testing.T) {
	r := run(t, handsOver)
	client := r.dial()
	defer unix.Close(client)
	say(client, "request\x00find_endp\x00label\x00"+strings.Repeat("x", maxMessage))
	r.settled()
	say(client, "\x00request\x00find_endp\x00label\x00hidden\x00")
	r.settled()
	r.succeed()
	say(client, "\x00request\x00save_dest\x00ttl\x0050\x00label\x00d\x00property\x00p\x00label\x00e\x00\x00")
	expect(t, client, "status\x001\x00property\x00\x00\x00status\x000\x00\x00")
}

// What clients make us keep is charged in another process as well.
func TestTakeOverCountsWhatClientsMakeUsKeep(t *testing.T) {
	r := run(t, handsOver)
	half, save := r.dial(), r.dial()
	defer unix.Close(half)
	defer unix.Close(save)
	say(half, find(strings.Repeat("x", 1<<20))[:1<<20])
	say(save, "request\x00save_endp\x00ttl\x0050\x00label\x00e\x00property\x00"+strings.Repeat("x", 1<<20)+"\x00\x00")
	expect(t, save, proto.DummyMessage)
	operator := r.dial()
	defer unix.Close(operator)
	const least = 2 << 20
	if before := counted(t, operator)["client_memory_bytes"]; before < least {
		t.Fatalf("%d bytes before", before)
	}
	r.succeed().settled()
	if after := counted(t, operator)["client_memory_bytes"]; after < least {
		t.Errorf("%d bytes, of two clients with a mebibyte each", after)
	}
}

// settled returns when the server has taken what was sent to it before.
func (r *running) settled() {
	r.t.Helper()
	client := r.dial()
	defer unix.Close(client)
	// A turn may leave something of a long request to the next ones.
	for range 2 * maxMessage / readSize {
		say(client, find("nothing"))
		expect(r.t, client, miss)
	}
}

// Bindings that made room for others are in the log of who reports next.
func TestTakeOverReportsDisplacedBindings(t *testing.T) {
	r := run(t, func(c *Config) { handsOver(c); c.Limits.Bindings = 2 })
	client := r.dial()
	defer unix.Close(client)
	bind := func(label string) {
		say(client, "request\x00save_dest\x00ttl\x0050\x00label\x00"+label+"\x00property\x00p\x00label\x00e\x00\x00")
		expect(t, client, "status\x000\x00\x00")
	}
	for _, label := range []string{"a", "b", "c", "d", "e"} {
		bind(label)
	}
	r = r.succeed().succeed()
	bind("f")
	r.stop()
	if log := r.log.from(0); !strings.Contains(log, "; displaced bindings=4 ") {
		t.Errorf("the log says %s", log)
	}
}
