package protocol

import (
	"strings"
	"testing"
)

// PROTOCOL.md, "Framing": clients that are half closed, do not read, or say
// nothing.

func TestHalfClosedClient(t *testing.T) {
	t.Parallel()
	d := start(t)
	p := newPair(t)
	for _, test := range []struct{ send, want string }{
		{findEndp("x"), endpMiss},
		{findDest("x"), destMiss},
		{saveDest("100", "D", "DP", "E"), statusOK},
		{message("request", "none"), statusBad},
		{"", ""},
	} {
		c := d.dial()
		c.send(test.send)
		c.shutdown()
		c.want(test.want)
		c.wantEOF()
	}
	// In the middle of an exchange.
	c := d.dial()
	c.send(saveEndp("100", "E", "EP"))
	c.want(dummy)
	c.sendFD("\x00", p.near)
	c.shutdown()
	c.want(statusOK)
	c.wantEOF()
	c = d.dial()
	c.send(findDest("D"))
	c.want(destHit("DP", "EP"))
	c.send(dummy)
	c.shutdown()
	p.wantBack(t, c.wantFD())
	c.wantEOF()
	d.dial().wantNoDest("D")
}

func TestUnreadRepliesAreKept(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	var replies strings.Builder
	for i := range 60 { // at a quarter of the socket's buffer stock stops to write
		switch i % 3 {
		case 0:
			c.send(findEndp("x"))
			replies.WriteString(endpMiss)
		case 1:
			c.send(findDest("x"))
			replies.WriteString(destMiss)
		case 2:
			c.send(saveDest("9", "D", "DP", "E"))
			replies.WriteString(statusOK)
		}
		c.taken() // one request a read: that much stock can do
	}
	c.want(replies.String())
	c.inStep()
}

func TestSilentClientStaysConnected(t *testing.T) {
	t.Parallel()
	d := start(t)
	silent, spoke := d.dialOnly(t), d.dial()
	spoke.inStep()
	for range 20 {
		c := d.dial()
		c.inStep()
		c.close()
	}
	silent.want(announcement)
	silent.inStep()
	spoke.inStep()
}
