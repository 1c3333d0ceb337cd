package server

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
)

// Where a descriptor would need the last ones that are left, something cached gives way to it, before it would be
// lost; and not sooner.
func TestRoomIsMadeForADescriptor(t *testing.T) {
	c := newHandClient(t)
	s := c.conn.server
	save := func(label string) {
		t.Helper()
		c.say(proto.AppendSaveEndpoint(nil, 9, label, ""), len(proto.DummyMessage))
		file, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		sendRights(t, c.fd, "\x00", file)
		unix.Close(file)
		c.conn.Ready(c.conn.fd, false)
		if got, want := c.read(), string(proto.AppendStatus(nil, proto.OK)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	save("a")
	s.descriptors.limit = s.descriptors.inUse() + spareDescriptors + 1
	for _, step := range []struct {
		label   string
		evicted int
	}{{"b", 0}, {"c", 1}} {
		save(step.label)
		if got := s.caches[0].stats.closed[store.Evicted]; got != step.evicted {
			t.Errorf("save %s: %d evicted, want %d", step.label, got, step.evicted)
		}
	}
}
