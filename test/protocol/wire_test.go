package protocol

import "testing"

// PROTOCOL.md, "The wire": every exchange as it should be.

func TestAnnouncementComesUnasked(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dialOnly(t)
	c.want(announcement)
	if len(announcement) != 36 {
		t.Fatalf("the announcement has %d bytes", len(announcement))
	}
	c.nothing()
	c.inStep()
}

func TestExchanges(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()

	c.send("request\x00find_endp\x00label\x00E\x00\x00")
	c.want("status\x002\x00property\x00\x00\x00")
	c.send("request\x00find_dest\x00label\x00D\x00\x00")
	c.want("status\x002\x00property\x00\x00property\x00\x00\x00")

	p := newPair(t)
	c.send("request\x00save_endp\x00ttl\x00100\x00label\x00E\x00property\x00EP\x00\x00")
	c.want("dummy\x00\x00\x00")
	c.sendFD("\x00", p.near)
	c.want("status\x000\x00\x00")

	c.send("request\x00find_endp\x00label\x00E\x00\x00")
	c.want("status\x000\x00property\x00EP\x00\x00")
	c.send("dummy\x00\x00\x00")
	p.wantBack(t, c.wantFD())
	c.send("dummy\x00\x00\x00")
	c.inStep() // which shows that the last dummy is not answered

	c.send("request\x00save_dest\x00ttl\x00100\x00label\x00D\x00property\x00DP\x00label\x00E\x00\x00")
	c.want("status\x000\x00\x00")
	c.send("request\x00find_dest\x00label\x00D\x00\x00")
	c.want("status\x002\x00property\x00\x00property\x00\x00\x00") // a binding without a connection
	c.save("100", "E", "EP", p.near)
	c.send("request\x00find_dest\x00label\x00D\x00\x00")
	c.want("status\x000\x00property\x00DP\x00property\x00EP\x00\x00")
	c.send("dummy\x00\x00\x00")
	p.wantBack(t, c.wantFD())
	c.send("dummy\x00\x00\x00")
	c.inStep()

	c.wantNoEndp("E")
	c.wantNoDest("D")
}

// The byte that carries the descriptor may have any value.
func TestAnyByteCarriesADescriptor(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	for value := range 256 {
		c.send(saveEndp("100", "E", prop(value)))
		c.want(dummy)
		c.sendFD(string([]byte{byte(value)}), p.near)
		c.want(statusOK)
	}
	for value := range 256 {
		c.wantEndp("E", prop(value), p)
	}
	c.wantNoEndp("E")
}

// What is saved by one client is found by another, also when the first is gone.
func TestClientsShareTheCache(t *testing.T) {
	t.Parallel()
	d := start(t)
	p := newPair(t)
	c1, c2 := d.dial(), d.dial()
	c1.save("100", "E", "EP", p.near)
	c1.bind("100", "D", "DP", "E")
	c2.wantDest("D", "DP", "EP", p)
	c1.wantNoEndp("E")
	c2.save("100", "E", "EP", p.near)
	c2.close()
	c1.wantDest("D", "DP", "EP", p)
}
