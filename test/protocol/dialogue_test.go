package protocol

import "strings"

// The messages of the protocol. A message is written as its strings, joined by
// NULs.
const (
	announcement = "protocol\x00connection_cache_protocol\x00\x00"
	dummy        = "dummy\x00\x00\x00"
	statusOK     = "status\x000\x00\x00"
	statusBad    = "status\x001\x00\x00"
	statusFail   = "status\x002\x00\x00"
	endpBad      = "status\x001\x00property\x00\x00\x00"
	endpMiss     = "status\x002\x00property\x00\x00\x00"
	destBad      = "status\x001\x00property\x00\x00property\x00\x00\x00"
	destMiss     = "status\x002\x00property\x00\x00property\x00\x00\x00"
)

func message(s ...string) string { return strings.Join(s, "\x00") + "\x00\x00" }

func saveEndp(ttl, label, prop string) string {
	return message("request", "save_endp", "ttl", ttl, "label", label, "property", prop)
}

func findEndp(label string) string { return message("request", "find_endp", "label", label) }

func saveDest(ttl, label, prop, endp string) string {
	return message("request", "save_dest", "ttl", ttl, "label", label, "property", prop, "label", endp)
}

func findDest(label string) string { return message("request", "find_dest", "label", label) }

func endpHit(prop string) string { return message("status", "0", "property", prop) }

func destHit(destProp, endpProp string) string {
	return message("status", "0", "property", destProp, "property", endpProp)
}

// inStep proves that the daemon has nothing else to say to this client and
// still understands it: a request gets its answer, and nothing before it.
func (c *client) inStep() {
	c.t.Helper()
	c.send(findEndp("nothing is saved under this name"))
	c.want(endpMiss)
}

// save goes through a whole save_endp.
func (c *client) save(ttl, label, prop string, fd int) {
	c.t.Helper()
	c.send(saveEndp(ttl, label, prop))
	c.want(dummy)
	c.sendFD("\x00", fd)
	c.want(statusOK)
}

// bind goes through a whole save_dest.
func (c *client) bind(ttl, label, prop, endp string) {
	c.t.Helper()
	c.send(saveDest(ttl, label, prop, endp))
	c.want(statusOK)
}

// take is the second half of a find: it returns the descriptor.
func (c *client) take() int {
	c.t.Helper()
	c.send(dummy)
	fd := c.wantFD()
	c.send(dummy)
	return fd
}

// wantEndp expects a connection under an endpoint.
func (c *client) wantEndp(label, prop string, p *pair) {
	c.t.Helper()
	c.send(findEndp(label))
	c.want(endpHit(prop))
	p.wantBack(c.t, c.take())
}

// wantDest expects a connection under a destination.
func (c *client) wantDest(label, destProp, endpProp string, p *pair) {
	c.t.Helper()
	c.send(findDest(label))
	c.want(destHit(destProp, endpProp))
	p.wantBack(c.t, c.take())
}

func (c *client) wantNoEndp(label string) {
	c.t.Helper()
	c.send(findEndp(label))
	c.want(endpMiss)
}

func (c *client) wantNoDest(label string) {
	c.t.Helper()
	c.send(findDest(label))
	c.want(destMiss)
}

// find looks an endpoint up; the descriptor is -1 if there is none.
func (c *client) find(label string) (prop string, fd int) {
	c.t.Helper()
	c.send(findEndp(label))
	m := c.message()
	if len(m) != 4 || m[0] != "status" || m[2] != "property" {
		c.t.Fatalf("odd reply %q", m)
	}
	switch m[1] {
	case "0":
		return m[3], c.take()
	case "2":
		return "", -1
	}
	c.t.Fatalf("odd status in reply %q", m)
	return "", -1
}
