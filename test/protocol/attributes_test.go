package protocol

import (
	"fmt"
	"strings"
	"testing"
)

// PROTOCOL.md, "Attributes".

// Malformed requests get status 1 in the shape of their own reply, have no
// effect, and leave the client usable.
func TestMalformed(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	r := func(s ...string) string { return message(append([]string{"request"}, s...)...) }
	for _, test := range []struct{ request, reply string }{
		// missing
		{r("find_endp"), endpBad},
		{r("find_dest"), destBad},
		{r("save_endp"), statusBad},
		{r("save_endp", "ttl", "9"), statusBad},
		{r("save_endp", "ttl", "9", "label", "L"), statusBad},
		{r("save_endp", "label", "L", "property", "P"), statusBad},
		{r("save_endp", "ttl", "9", "property", "P"), statusBad},
		{r("save_dest"), statusBad},
		{r("save_dest", "ttl", "9"), statusBad},
		{r("save_dest", "ttl", "9", "label", "L"), statusBad},
		{r("save_dest", "ttl", "9", "label", "L", "property", "P"), statusBad},
		{r("save_dest", "label", "L", "property", "P", "label", "E"), statusBad},
		{r("save_dest", "ttl", "9", "label", "L", "label", "E"), statusBad},
		// unknown before the last wanted one
		{r("find_endp", "other", "x", "label", "L"), endpBad},
		{r("find_dest", "other", "x", "label", "L"), destBad},
		{r("save_endp", "other", "x", "ttl", "9", "label", "L", "property", "P"), statusBad},
		{r("save_endp", "ttl", "9", "label", "L", "other", "x", "property", "P"), statusBad},
		{r("save_dest", "ttl", "9", "label", "L", "property", "P", "other", "x", "label", "E"), statusBad},
		// repeated before the last wanted one
		{r("save_endp", "ttl", "9", "ttl", "9", "label", "L", "property", "P"), statusBad},
		{r("save_endp", "ttl", "9", "label", "L", "label", "L", "property", "P"), statusBad},
		{r("save_dest", "ttl", "9", "label", "L", "property", "P", "property", "P", "label", "E"), statusBad},
		// in another order
		{r("save_endp", "label", "L", "ttl", "9", "property", "P"), statusBad},
		{r("save_endp", "ttl", "9", "property", "P", "label", "L"), statusBad},
		{r("save_dest", "ttl", "9", "label", "L", "label", "E", "property", "P"), statusBad},
		{r("save_dest", "ttl", "9", "property", "P", "label", "L", "label", "E"), statusBad},
		// names compare byte for byte
		{r("find_endp", "Label", "L"), endpBad},
		{r("find_endp", "label ", "L"), endpBad},
		{r("find_endp", " label", "L"), endpBad},
		{r("find_endp", "labe", "L"), endpBad},
		{r("find_endp", "labels", "L"), endpBad},
		{r("find_dest", "LABEL", "L"), destBad},
		{r("save_endp", "TTL", "9", "label", "L", "property", "P"), statusBad},
		{r("save_dest", "ttl", "9", "label", "L", "Property", "P", "label", "E"), statusBad},
		// unknown requests, likewise
		{r(""), statusBad},
		{r("FIND_ENDP", "label", "L"), statusBad},
		{r("Save_endp", "ttl", "9", "label", "L", "property", "P"), statusBad},
		{r("find_endp ", "label", "L"), statusBad},
		{r(" find_endp", "label", "L"), statusBad},
		{r("find_end", "label", "L"), statusBad},
		{r("find_endpx", "label", "L"), statusBad},
		{r("find_endp\n", "label", "L"), statusBad},
		{r("size"), statusBad},
		{r("\xff\xfe"), statusBad},
	} {
		c.send(test.request)
		if err := c.tryWant(test.reply); err != nil {
			t.Fatalf("%q: %v", test.request, err)
		}
		c.inStep()
	}
	c.wantNoEndp("L")
	c.wantNoEndp("E")
	c.wantNoDest("L")
}

// An unknown attribute after the last wanted one is ignored, and the request
// takes effect.
func TestUnknownAfterTheLastIsIgnored(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	more := func(request string) string {
		return strings.TrimSuffix(request, "\x00") + "other\x00x\x00\x00"
	}
	c.send(more(saveEndp("100", "E", "EP")))
	c.want(dummy)
	c.sendFD("\x00", p.near)
	c.want(statusOK)
	c.inStep()
	c.send(more(saveDest("100", "D", "DP", "E")))
	c.want(statusOK)
	c.inStep()
	c.send(more(findEndp("none")))
	c.want(endpMiss)
	c.inStep()
	c.send(more(findDest("D")))
	c.want(destHit("DP", "EP"))
	p.wantBack(t, c.take())
	c.inStep()
	c.save("100", "E", "EP", p.near)
	c.send(more(findEndp("E")))
	c.want(endpHit("EP"))
	p.wantBack(t, c.take())
	c.inStep()
}

// Every value comes back as it was given.
func TestValuesAreOpaque(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	var all []byte
	for b := 1; b < 256; b++ {
		all = append(all, byte(b))
	}
	values := []string{"", "\n", " ", "a\nb\n", "smtp\n[127.0.0.1]:2501\n", "=", "%s%n", "\xff\xfe", "request", "{", "}", string(all)}
	for _, n := range []int{1, 255, 256, 4094, 4095, 4096, 4097, 8191, 8192, 65535, 65536, 65537, 1<<20 - 1, 1 << 20} {
		values = append(values, strings.Repeat("0123456789abcdef", n/16+1)[:n])
	}
	for i, v := range values {
		what := fmt.Sprintf("%d: %.20q (%d bytes)", i, v, len(v))
		label := fmt.Sprint("label ", i)
		c.save("100", label, v, p.near)
		c.send(findEndp(label))
		if err := c.tryWant(endpHit(v)); err != nil {
			t.Fatalf("endpoint property %s: %v", what, err)
		}
		p.wantBack(t, c.take())

		c.bind("100", label, v, label)
		c.save("100", label, "EP", p.near)
		c.send(findDest(label))
		if err := c.tryWant(destHit(v, "EP")); err != nil {
			t.Fatalf("destination property %s: %v", what, err)
		}
		p.wantBack(t, c.take())

		c.save("100", v, "EP", p.near)
		c.bind("100", v, "DP", v)
		c.wantNoEndp(v + "x")
		c.wantNoDest("x" + v)
		c.wantDest(v, "DP", "EP", p)
		c.wantNoDest(v)
		c.save("100", v, "EP", p.near)
		c.wantEndp(v, "EP", p)
	}
}

// Above 1 MiB a server may refuse, but must not fall out of step.
func TestHugeValues(t *testing.T) {
	t.Parallel()
	better(t, "room for the value is not unlimited")
	d := start(t)
	c := d.dial()
	c.conn.SetWriteBuffer(1 << 20)
	v := strings.Repeat("x", 5<<20)
	done := make(chan error, 1)
	go func() {
		_, err := c.conn.Write([]byte(findEndp(v)))
		done <- err
	}()
	// A miss, or a refusal: the status, or the end of the connection.
	err := c.tryWant(endpMiss)
	switch {
	case err == nil:
		c.inStep()
	case strings.HasPrefix(string(c.in), "status\x001\x00"):
		c.want(endpBad)
		<-done
		c.inStep()
	default:
		c.close()
	}
	d.dial().inStep()
}

// What is not a request is passed over in silence; a request behind an empty
// message or a stray dummy is served.
func TestNoRequest(t *testing.T) {
	t.Parallel()
	d := start(t)
	for _, stray := range []string{
		"\x00",
		"\x00\x00\x00",
		dummy,
		"dummy\x00value\x00\x00",
		dummy + dummy,
		dummy + "\x00",
	} {
		t.Run(fmt.Sprintf("%q", stray), func(t *testing.T) {
			c := d.dialFor(t)
			for range 3 {
				c.send(stray)
				c.inStep()
			}
			c.send(stray + findDest("x"))
			c.want(destMiss)
			c.inStep()
		})
	}
	for _, other := range []string{
		"label\x00x\x00\x00",
		"Request\x00find_endp\x00\x00",
		"status\x000\x00\x00",
		"ttl\x001\x00label\x00x\x00property\x00x\x00\x00",
	} {
		t.Run(fmt.Sprintf("%q", other), func(t *testing.T) {
			c := d.dialFor(t)
			c.send(other)
			c.taken()
			c.inStep()
		})
	}
}

func TestTTLTexts(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	for _, ttl := range []string{"1", "05", "007", "1000", "2147483647", "0000000000000000000000100"} {
		c.send(saveEndp(ttl, "E", "EP"))
		if err := c.tryWant(dummy); err != nil {
			t.Fatalf("TTL %q: %v", ttl, err)
		}
		c.sendFD("\x00", p.near)
		c.want(statusOK)
		c.send(saveDest(ttl, "D", "DP", "E"))
		if err := c.tryWant(statusOK); err != nil {
			t.Fatalf("TTL %q: %v", ttl, err)
		}
	}
	for _, ttl := range []string{
		"0", "00", "-1", "-0", "-2147483648", "", "abc", "5x", "5 ", "5\n", "5,", "1.5", "0x10", "x5", "1e3",
		"2147483648", "4294967295", "4294967296", "99999999999999999999",
	} {
		c.send(saveEndp(ttl, "bad", "EP"))
		if err := c.tryWant(statusBad); err != nil {
			t.Fatalf("TTL %q: %v", ttl, err)
		}
		c.inStep()
		c.send(saveDest(ttl, "bad", "DP", "E"))
		if err := c.tryWant(statusBad); err != nil {
			t.Fatalf("TTL %q: %v", ttl, err)
		}
		c.inStep()
	}
	c.wantNoEndp("bad")
	c.wantNoDest("bad")
	// Free to be accepted or refused.
	for _, ttl := range []string{"+5", " 5", "\t5", "\n5", "4294967297"} {
		c.send(saveEndp(ttl, "E", "EP"))
		if c.wantOneOf(dummy, statusBad) == dummy {
			c.sendFD("\x00", p.near)
			c.want(statusOK)
		}
		c.inStep()
		c.send(saveDest(ttl, "D", "DP", "E"))
		c.wantOneOf(statusOK, statusBad)
		c.inStep()
	}
}
