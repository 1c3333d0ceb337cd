package protocol

import (
	"fmt"
	"testing"
)

// PROTOCOL.md, "Descriptors in the wrong place or number".

// maxFDs is SCM_MAX_FD, the most descriptors that a message can carry.
const maxFDs = 253

func TestByteWithoutDescriptor(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	for _, b := range []string{"\x00", "x", "r", "\xff"} {
		c.send(saveEndp("100", "E", "EP"))
		c.want(dummy)
		c.send(b)
		c.want(statusFail)
		c.inStep()
		// Exactly one byte is consumed: what follows is a request.
		c.send(saveEndp("100", "E", "EP"))
		c.want(dummy)
		c.send(b + findDest("x"))
		c.want(statusFail + destMiss)
		c.inStep()
	}
	c.wantNoEndp("E")
}

// A descriptor attached to what has no use for it is closed, and the exchange
// goes on as usual.
func TestDescriptorNobodyAskedFor(t *testing.T) {
	t.Parallel()
	d := start(t)
	before := d.settled()
	c := d.dial()
	p, stray := newPair(t), newPair(t)
	for i, request := range []struct{ send, want string }{
		{findEndp("x"), endpMiss},
		{findDest("x"), destMiss},
		{saveDest("100", "D", "DP", "E"), statusOK},
		{saveDest("0", "D", "DP", "E"), statusBad},
		{saveEndp("0", "E", "EP"), statusBad},
		{message("request", "none"), statusBad},
	} {
		c.sendFD(request.send, stray.near)
		if err := c.tryWant(request.want); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		c.inStep()
		// On a byte in the middle.
		c.send(request.send[:9])
		c.sendFD(request.send[9:], stray.near)
		if err := c.tryWant(request.want); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		c.inStep()
	}
	for _, on := range []string{"first dummy", "final dummy", "both dummies"} {
		c.save("100", "E", "EP", p.near)
		c.send(findDest("D"))
		c.want(destHit("DP", "EP"))
		if on == "final dummy" {
			c.send(dummy)
		} else {
			c.sendFD(dummy, stray.near)
		}
		p.wantBack(t, c.wantFD())
		if on == "first dummy" {
			c.send(dummy)
		} else {
			c.sendFD(dummy, stray.near)
		}
		c.inStep()
	}
	c.sendFD(dummy, stray.near) // a stray dummy
	c.inStep()
	c.close()
	d.wantFDs(before)
	stray.wantClosed(t)
}

// A descriptor on the save_endp request itself may be taken for the one to be
// saved, or not. Either way none is left behind, and the client stays in step
// once it has sent what the protocol asks for.
func TestDescriptorTooEarly(t *testing.T) {
	t.Parallel()
	d := start(t)
	before := d.settled()
	early, due := newPair(t), newPair(t)
	c := d.dial()
	for _, how := range []string{"on the request", "on its last byte", "before the dummy"} {
		request := saveEndp("100", "E", "EP")
		switch how {
		case "on the request":
			c.sendFD(request, early.near)
		case "on its last byte":
			c.send(request[:len(request)-1])
			c.taken()
			c.sendFD(request[len(request)-1:], early.near)
		case "before the dummy":
			c.send(request)
			c.sendFD("\x00", early.near)
		}
		c.want(dummy)
		if how != "before the dummy" {
			c.sendFD("\x00", due.near)
		}
		c.wantOneOf(statusOK, statusFail)
		c.inStep()
		for { // at most one may have been saved
			_, fd := c.find("E")
			if fd < 0 {
				break
			}
			closeAll([]int{fd})
		}
	}
	c.close()
	d.wantFDs(before)
	early.wantClosed(t)
	due.wantClosed(t)
}

func TestTooManyDescriptors(t *testing.T) {
	t.Parallel()
	better(t, "stock leaks a second descriptor for ever")
	d := start(t)
	before := d.settled()
	first := newPair(t)
	rest := make([]int, maxFDs)
	second := newPair(t)
	for i := range rest {
		rest[i] = second.near
	}
	for _, n := range []int{2, 3, 10, maxFDs} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := d.dialFor(t)
			c.send(saveEndp("100", "E", "EP"))
			c.want(dummy)
			c.sendFD("\x00", append([]int{first.near}, rest[:n-1]...)...)
			if c.wantOneOf(statusOK, statusFail) == statusOK {
				c.wantEndp("E", "EP", first)
			}
			c.wantNoEndp("E")
			c.inStep()
			// The same where none is due.
			c.sendFD(findDest("x"), rest[:n]...)
			c.want(destMiss)
			c.save("100", "E", "EP", first.near)
			c.send(findEndp("E"))
			c.want(endpHit("EP"))
			c.sendFD(dummy, rest[:n]...)
			first.wantBack(t, c.wantFD())
			c.sendFD(dummy, rest[:n]...)
			c.inStep()
			c.sendFD(saveEndp("100", "E", "EP"), rest[:n]...)
			c.want(dummy)
			c.send("\x00")
			c.wantOneOf(statusOK, statusFail)
			c.close()
			d.dialFor(t).find("E")
		})
	}
	// What a find has given to the last clients is closed with them.
	c := d.dial()
	for {
		_, fd := c.find("E")
		if fd < 0 {
			break
		}
		closeAll([]int{fd})
	}
	c.close()
	eventually(t, func() error {
		if n := d.fds(); n > before+4 { // the clients of the subtests
			return fmt.Errorf("%d descriptors, %d before", n, before)
		}
		return nil
	})
}

// Something else instead of the first dummy: no descriptor, no reply.
func TestNoGoAhead(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	for _, instead := range []string{"\x00", message("other", "x"), message("Dummy", ""), message("status", "0"), message("dumm", "")} {
		c.save("100", "E", "EP", p.near)
		c.send(findEndp("E"))
		c.want(endpHit("EP"))
		c.send(instead)
		c.inStep()
		if stock { // it has closed the connection
			c.wantNoEndp("E")
			continue
		}
		c.wantEndp("E", "EP", p) // it has been kept
		c.wantNoEndp("E")
	}
}

// A connection that is kept goes back to its place, with the time it had.
func TestNoGoAheadKeepsPlaceAndTime(t *testing.T) {
	t.Parallel()
	better(t, "stock closes the connection")
	d := start(t)
	c := d.dial()
	first, second, short := newPair(t), newPair(t), newPair(t)
	c.save("100", "E", "P0", first.near)
	c.save("100", "E", "P1", second.near)
	c.bind("100", "D", "DP", "E")
	for _, request := range []string{findEndp("E"), findDest("D")} {
		c.send(request)
		c.message()
		c.send("\x00")
		c.inStep()
	}
	c.wantDest("D", "DP", "P0", first)
	c.wantEndp("E", "P1", second)
	c.wantNoEndp("E")

	c.save("1", "F", "EP", short.near)
	c.send(findEndp("F"))
	c.want(endpHit("EP"))
	c.send("\x00")
	short.wantClosed(t)
	c.wantNoEndp("F")
}
