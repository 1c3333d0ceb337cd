package protocol

import (
	"strings"
	"testing"
)

// PROTOCOL.md, "Framing".

// An exchange is what a client sends and receives, in order. Its last step is
// followed by the proof that both are in step.
type exchange struct {
	name  string
	setUp func(c *client, p *pair)
	steps []step
}

// A step sends bytes, possibly with a descriptor on the first, and then expects
// bytes, or a descriptor.
type step struct {
	send   string
	withFD bool
	want   string
	wantFD bool
}

var exchanges = []exchange{
	{"find_endp miss", nil, []step{
		{send: findEndp("E"), want: endpMiss},
	}},
	{"find_dest miss", nil, []step{
		{send: findDest("D"), want: destMiss},
	}},
	{"save_dest", nil, []step{
		{send: saveDest("100", "D", "DP", "E"), want: statusOK},
	}},
	{"save_endp", nil, []step{
		{send: saveEndp("100", "E", "EP"), want: dummy},
		{send: "\x00", withFD: true, want: statusOK},
	}},
	{"save_endp, next request behind the descriptor", nil, []step{
		{send: saveEndp("100", "E", "EP"), want: dummy},
		{send: "\x00" + findDest("none"), withFD: true, want: statusOK + destMiss},
	}},
	{"find_endp", saved, []step{
		{send: findEndp("E"), want: endpHit("EP")},
		{send: dummy, wantFD: true},
		{send: dummy},
	}},
	{"find_dest", bound, []step{
		{send: findDest("D"), want: destHit("DP", "EP")},
		{send: dummy, wantFD: true},
		{send: dummy},
	}},
	{"find_endp, next request behind the last dummy", saved, []step{
		{send: findEndp("E"), want: endpHit("EP")},
		{send: dummy, wantFD: true},
		{send: dummy + saveDest("100", "D", "DP", "E"), want: statusOK},
	}},
	{"find_dest, save_endp behind the last dummy", bound, []step{
		{send: findDest("D"), want: destHit("DP", "EP")},
		{send: dummy, wantFD: true},
		{send: dummy + saveEndp("100", "E", "EP"), want: dummy},
		{send: "\x00", withFD: true, want: statusOK},
	}},
	{"find_endp, both dummies at once", saved, []step{
		{send: findEndp("E"), want: endpHit("EP")},
		{send: dummy + dummy, wantFD: true},
	}},
	{"find_dest, both dummies and the next request at once", bound, []step{
		{send: findDest("D"), want: destHit("DP", "EP")},
		{send: dummy + dummy + findDest("none"), wantFD: true},
		{want: destMiss},
	}},
}

func saved(c *client, p *pair) {
	c.save("100", "E", "EP", p.near)
}

func bound(c *client, p *pair) {
	c.save("100", "E", "EP", p.near)
	c.bind("100", "D", "DP", "E")
}

// run goes through the exchange; sendIn sends the bytes of one step.
func (x exchange) run(t *testing.T, d *daemon, p *pair, sendIn func(c *client, stepNumber int, s string)) {
	t.Helper()
	c := d.dialFor(t)
	if x.setUp != nil {
		x.setUp(c, p)
	}
	for n, step := range x.steps {
		rest := step.send
		if step.withFD {
			c.sendFD(rest[:1], p.near)
			rest = rest[1:]
		}
		if rest != "" {
			sendIn(c, n, rest)
		}
		c.want(step.want)
		if step.wantFD {
			p.wantBack(t, c.wantFD())
		}
	}
	c.inStep()
	// Clear away what was saved.
	for {
		if _, fd := c.find("E"); fd < 0 {
			break
		} else {
			p.wantBack(t, fd)
		}
	}
	c.close()
}

// Every message may be cut anywhere.
func TestEverySplit(t *testing.T) {
	t.Parallel()
	for _, x := range exchanges {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			p := newPair(t)
			for n, step := range x.steps {
				for cut := 1; cut < len(step.send); cut++ {
					x.run(t, d, p, func(c *client, at int, s string) {
						if at != n || cut >= len(s) {
							c.send(s)
							return
						}
						c.send(s[:cut])
						c.taken() // so that the daemon really gets two pieces
						c.send(s[cut:])
					})
				}
			}
		})
	}
}

func TestByteByByte(t *testing.T) {
	t.Parallel()
	d := start(t)
	p := newPair(t)
	for _, x := range exchanges {
		x.run(t, d, p, func(c *client, _ int, s string) {
			for i := range len(s) {
				c.send(s[i : i+1])
				c.taken()
			}
		})
		x.run(t, d, p, func(c *client, _ int, s string) { // less neatly
			for i := range len(s) {
				c.send(s[i : i+1])
			}
		})
	}
}

func TestMalformedByteByByte(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	for request, reply := range map[string]string{
		message("request", "find_endp"):                              endpBad,
		message("request", "find_endp", "other", "x"):                endpBad,
		message("request", "find_dest", "other", "x", "label", "y"):  destBad,
		message("request", "none"):                                   statusBad,
		saveEndp("0", "E", "EP"):                                     statusBad,
		saveDest("x", "D", "DP", "E"):                                statusBad,
		message("request", "save_endp", "label", "E", "other", "EP"): statusBad,
	} {
		for i := range len(request) {
			c.send(request[i : i+1])
			c.taken()
		}
		c.want(reply)
		c.inStep()
	}
}

// A well-formed request is not answered before its final NUL.
func TestNoAnswerBeforeTheEnd(t *testing.T) {
	t.Parallel()
	better(t, "the other client, by whom the test knows, would wait")
	d := start(t)
	p := newPair(t)
	other := d.dial()
	for _, request := range []string{
		findEndp("E"), findDest("D"), saveEndp("100", "E", "EP"), saveDest("100", "D", "DP", "E"),
	} {
		c := d.dial()
		for i := range len(request) - 1 {
			c.send(request[i : i+1])
			c.taken()
		}
		other.inStep()
		other.inStep() // the daemon has been round twice
		c.nothing()
		c.send("\x00")
		if strings.Contains(request, "save_endp") {
			c.want(dummy)
			c.sendFD("\x00", p.near)
		}
		c.wantOneOf(endpMiss, destMiss, statusOK)
		c.inStep()
	}
}

// A dummy's value does not matter, neither does that of the byte.
func TestAnyDummy(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	for _, value := range []string{"", "x", "request", "dummy", strings.Repeat("long", 3000)} {
		c.save("100", "E", "EP", p.near)
		c.send(findEndp("E"))
		c.want(endpHit("EP"))
		c.send(message("dummy", value))
		p.wantBack(t, c.wantFD())
		c.send(message("dummy", value))
		c.inStep()
	}
}

// save_endp and another request in one write is the client's error. The daemon
// may be out of step with this client, but with nobody else.
func TestRequestInsteadOfDescriptor(t *testing.T) {
	t.Parallel()
	d := start(t)
	before := d.settled()
	c := d.dial()
	c.send(saveEndp("100", "E", "EP") + findEndp("F"))
	c.want(dummy)
	c.close()
	other := d.dial()
	other.wantNoEndp("E")
	other.close()
	d.wantFDs(before)
}

// So is a request where a dummy is due; answering it is fine.
func TestRequestInsteadOfDummy(t *testing.T) {
	t.Parallel()
	better(t, "stock closes the connection")
	d := start(t)
	before := d.settled()
	p := newPair(t)
	for _, place := range []string{"first", "final"} {
		c := d.dial()
		c.save("100", "E", "EP", p.near)
		c.send(findEndp("E"))
		c.want(endpHit("EP"))
		if place == "final" {
			c.send(dummy)
			p.wantBack(t, c.wantFD())
		}
		c.send(findDest("none"))
		c.taken()
		c.close()
		other := d.dial()
		d.wantFDs(before + 1 + map[string]int{"first": 1}[place]) // the connection is kept
		if place == "first" {
			other.wantEndp("E", "EP", p)
		}
		other.wantNoEndp("E")
		other.close()
		d.wantFDs(before)
	}
}
