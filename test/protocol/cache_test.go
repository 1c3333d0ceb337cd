package protocol

import (
	"fmt"
	"testing"
)

// PROTOCOL.md, "The cache": order and identity.

func TestOldestConnectionFirst(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	pairs := newPairs(t, 6)
	for i, ttl := range []string{"1000", "60", "2000", "90", "3000", "70"} {
		c.save(ttl, "E", prop(i), pairs[i].near)
	}
	for i, p := range pairs {
		c.wantEndp("E", prop(i), p)
	}
	c.wantNoEndp("E")
}

func TestEntriesAreNotMerged(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	pairs := newPairs(t, 3)
	for _, p := range pairs { // one property
		c.save("100", "E", "same", p.near)
	}
	for _, p := range pairs {
		c.wantEndp("E", "same", p)
	}
	for range 3 { // and one open file
		c.save("100", "E", "same", pairs[0].near)
	}
	for range 3 {
		c.wantEndp("E", "same", pairs[0])
	}
	c.wantNoEndp("E")
	c.save("100", "E1", "same", pairs[0].near) // under two endpoints
	c.save("100", "E2", "same", pairs[0].near)
	c.wantEndp("E2", "same", pairs[0])
	c.wantEndp("E1", "same", pairs[0])
	c.wantNoEndp("E1")
	c.wantNoEndp("E2")
}

func TestBindingsInOrderOfFirstSaving(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	pairs := newPairs(t, 6)
	for e := range 3 { // connections come later than their bindings
		c.bind("100", "D", fmt.Sprint("DP", e), fmt.Sprint("E", e))
	}
	for _, e := range []int{2, 1, 0} { // and in another order
		for n := range 2 {
			c.save("100", fmt.Sprint("E", e), prop(n), pairs[2*e+n].near)
		}
	}
	c.bind("100", "D", "DP0", "E0") // a refresh changes no order
	c.bind("100", "D", "DP2", "E2")
	c.bind("100", "D", "DP1", "E1")
	for e := range 3 {
		for n := range 2 {
			c.wantDest("D", fmt.Sprint("DP", e), prop(n), pairs[2*e+n])
		}
	}
	c.wantNoDest("D")
	// The bindings are still there: any endpoint may have a connection again.
	for _, e := range []int{1, 2, 0} {
		c.save("100", fmt.Sprint("E", e), "again", pairs[e].near)
		c.wantDest("D", fmt.Sprint("DP", e), "again", pairs[e])
	}
	c.wantNoDest("D")
}

func TestOneEndpointWithTwoDestinationProperties(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	c.bind("100", "D", "first", "E")
	c.bind("100", "D", "second", "E")
	c.bind("100", "D", "", "E")
	for range 3 {
		c.save("100", "E", "EP", p.near)
		c.wantDest("D", "first", "EP", p)
	}
}

func TestManyDestinationsShareAnEndpoint(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	pairs := newPairs(t, 3)
	for i, p := range pairs {
		c.bind("100", fmt.Sprint("D", i), fmt.Sprint("DP", i), "E")
		c.save("100", "E", prop(i), p.near)
	}
	c.wantDest("D2", "DP2", "P0", pairs[0])
	c.wantDest("D0", "DP0", "P1", pairs[1])
	c.wantEndp("E", "P2", pairs[2])
	for i := range pairs {
		c.wantNoDest(fmt.Sprint("D", i))
	}
}

func TestNamesAreByteForByte(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	c.save("100", "Name", "EP", p.near)
	c.bind("100", "Name", "DP", "Name")
	for _, other := range []string{"", "name", "NAME", "Name ", " Name", "Nam", "Names", "Name\n", "Nam\xe5"} {
		c.wantNoEndp(other)
		c.wantNoDest(other)
		c.bind("100", "other", "DP", other)
	}
	c.wantNoDest("other")
	c.wantDest("Name", "DP", "EP", p)
}

func TestNamesOfDestinationsAndEndpointsAreSeparate(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	c.save("100", "X", "EP", p.near)
	c.wantNoDest("X")
	c.bind("100", "Y", "DP", "X")
	c.wantNoEndp("Y")
	// Bindings do not chain.
	c.bind("100", "Z", "DP", "Y")
	c.wantNoDest("Z")
	c.wantDest("Y", "DP", "EP", p)
}

func TestEmptyNames(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	c.wantNoEndp("")
	c.wantNoDest("")
	c.save("100", "", "", p.near)
	c.wantNoDest("")
	c.bind("100", "", "", "")
	c.wantDest("", "", "", p)
	c.wantNoDest("")
	c.save("100", "\n", "\n", p.near)
	c.wantNoEndp("")
	c.wantNoDest("")
	c.wantEndp("\n", "\n", p)
}
