package agent

import (
	"bytes"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// client is one delivery agent.
type client struct {
	fd     int32 // to the server
	held   int32 // its connection to the sink, -1: none
	state  state
	owed   bool // the dummy that ends a find
	got    int32
	number int    // names its endpoint and destination
	turn   int    // number of its operation, in a fill
	start  int64  // of its operation
	inode  uint64 // of what it has saved; only if that is verified
	until  int64  // its own endpoint must have its connection
}

// state is what a client waits for.
type state uint8

const (
	idle state = iota
	wantsDummy
	wantsSaved
	wantsBound
	wantsEndpoint
	wantsDestination
	wantsDescriptor
	wantsGreeting // this one and those below come from the sink
	wantsHello
	wantsReset
	wantsGo
	wantsTaken
	wantsBye
	states

	firstOfMail = wantsGreeting
)

func (s state) String() string {
	return [...]string{
		"idle", "in save_endp, wanting the dummy", "in save_endp, wanting the status", "in save_dest", "in find_endp",
		"in find_dest", "wanting the descriptor", "wanting the sink's greeting", "after EHLO", "after RSET", "after DATA",
		"after the message", "after QUIT",
	}[s]
}

// expect lists what may be heard in each state.
func (t *thread) expect() {
	t.wants = [states][2][]byte{
		wantsDummy:       {t.texts.dummy},
		wantsSaved:       {t.texts.done},
		wantsBound:       {t.texts.done},
		wantsEndpoint:    {t.texts.endpointHit, t.texts.endpointMiss},
		wantsDestination: {t.texts.destinationHit, t.texts.destinationNo},
		wantsGreeting:    {t.mail.greeting},
		wantsHello:       {t.mail.hello},
		wantsReset:       {t.mail.ok},
		wantsGo:          {t.mail.dataReply},
		wantsTaken:       {t.mail.ok},
		wantsBye:         {t.mail.bye},
	}
}

// index is the client's place among the thread's.
func (c *client) index(t *thread) int32 {
	return int32((uintptr(unsafe.Pointer(c)) - uintptr(unsafe.Pointer(&t.clients[0]))) / unsafe.Sizeof(*c))
}

// start begins an operation, or goes on with it when a connection has been opened.
func (t *thread) start(c *client) error {
	number := c.turn
	switch t.run.Workload {
	case Cycle:
		return t.save(c, endpointKind, t.endpoint(c.number))
	case Miss:
		t.texts.find.set(0, unknownKind, c.number)
		return t.request(c, t.texts.find, wantsEndpoint)
	case Bind:
		number = c.number
		if t.config.Bound > 0 {
			number = t.random.IntN(t.config.Bound)
		}
		return t.bind(c, number)
	case Deliver:
		t.texts.findDestination.set(0, destinationKind, t.endpoint(c.number))
		return t.request(c, t.texts.findDestination, wantsDestination)
	case fillConnections:
		if t.config.Endpoints > 0 {
			return t.save(c, endpointKind, t.endpoint(number))
		}
		write(t.texts.save.ttl, t.fillTTL())
		return t.save(c, cachedKind, number)
	case fillBindings:
		write(t.texts.bind.ttl, t.fillTTL())
		return t.bind(c, number)
	}
	return fmt.Errorf("unknown workload %q", t.run.Workload)
}

// fillTTL is half of the time to live to all of it, at random. So the order in which
// things expire is not the one in which they lie in memory, as in a server that has
// been running for a while: one that walks a list of timers pays for that.
func (t *thread) fillTTL() int {
	return t.config.TTL - t.random.IntN(t.config.TTL/2+1)
}

// endpoint is the one of a number: shared, or of its own.
func (t *thread) endpoint(number int) int {
	if t.config.Endpoints > 0 {
		return number % t.config.Endpoints
	}
	return number
}

func (t *thread) save(c *client, kind byte, number int) error {
	if c.held < 0 {
		return t.connectMail(c)
	}
	t.texts.save.set(0, kind, number)
	return t.request(c, t.texts.save, wantsDummy)
}

func (t *thread) bind(c *client, number int) error {
	t.texts.bind.set(0, destinationKind, number)
	t.texts.bind.set(1, endpointKind, number)
	return t.request(c, t.texts.bind, wantsBound)
}

func (t *thread) request(c *client, request *template, reply state) error {
	c.state = reply
	owed := c.owed
	c.owed = false
	return t.socket.send(c.fd, request.message(owed))
}

// acknowledge sends the dummy that is owed.
func (t *thread) acknowledge(c *client) error {
	if !c.owed {
		return nil
	}
	c.owed = false
	return t.socket.send(c.fd, t.texts.dummy)
}

// heard receives from the server.
func (t *thread) heard(c *client) error {
	if c.state == wantsDescriptor {
		return t.descriptor(c)
	}
	n, err := t.socket.receive(c.fd, t.buffer[:])
	if n == 0 {
		return err
	}
	which, whole, err := t.match(c, t.buffer[:n])
	if !whole {
		return err
	}
	switch c.state {
	case wantsDummy:
		return t.handOver(c)
	case wantsSaved:
		if t.run.Workload == Cycle {
			t.texts.find.set(0, endpointKind, t.endpoint(c.number))
			return t.request(c, t.texts.find, wantsEndpoint)
		}
	case wantsBound:
		if t.run.Workload == Deliver {
			return t.save(c, endpointKind, t.endpoint(c.number))
		}
	case wantsEndpoint, wantsDestination:
		return t.found(c, which == 0)
	}
	return t.finished(c)
}

// match compares what was heard with what may be. whole says that it is the
// which-th of the wanted replies, to its end.
func (t *thread) match(c *client, heard []byte) (which int, whole bool, err error) {
	from, to := int(c.got), int(c.got)+len(heard)
	for i, want := range t.wants[c.state] {
		if to <= len(want) && bytes.Equal(want[from:to], heard) {
			c.got = int32(to)
			if to == len(want) {
				c.got = 0
				return i, true, nil
			}
			return i, false, nil
		}
	}
	return 0, false, fmt.Errorf("got %.100q behind %d bytes of %.100q", heard, from, t.wants[c.state])
}

// handOver gives the held connection to the server.
func (t *thread) handOver(c *client) error {
	if t.config.Verify {
		var err error
		if c.inode, err = inode(c.held); err != nil {
			return err
		}
	}
	c.state = wantsSaved
	if err := t.socket.sendDescriptor(c.fd, c.held); err != nil {
		return err
	}
	t.counts.Handed++
	closeQuick(c.held)
	c.held = -1
	if t.config.Endpoints == 0 {
		c.until = t.clock() + int64(time.Duration(t.config.TTL-1)*time.Second) // stock's second may be short
	}
	return nil
}

func (t *thread) found(c *client, hit bool) error {
	switch {
	case hit && t.run.Workload != Miss:
		c.state = wantsDescriptor
		return t.socket.send(c.fd, t.texts.dummy)
	case hit:
		return fmt.Errorf("found what nobody has saved")
	case t.run.Workload == Miss:
		return t.finished(c)
	case t.run.Workload == Deliver && t.clock() >= c.until:
		return t.connectMail(c)
	}
	return fmt.Errorf("its connection is lost")
}

// descriptor receives what was found.
func (t *thread) descriptor(c *client) error {
	fd, n, err := t.socket.receiveDescriptor(c.fd, t.buffer[:])
	if n == 0 || err != nil {
		return err
	}
	t.counts.Returned++
	c.held, c.owed, c.until = fd, true, 0
	if t.config.Verify {
		if came, err := inode(fd); err != nil || came != c.inode {
			return fmt.Errorf("saved socket %d and got %d back (%v)", c.inode, came, err)
		}
	}
	if t.run.Workload == Deliver {
		if err := t.acknowledge(c); err != nil {
			return err
		}
		return t.resumeMail(c)
	}
	if t.config.Fresh {
		t.drop(c)
	}
	return t.finished(c)
}

// dial opens a connection for a client.
func (t *thread) dial(c *client) (err error) {
	c.held, err = t.dialer.dial()
	if err == nil {
		t.counts.Opened++
	}
	return err
}

// drop ends the held connection.
func (t *thread) drop(c *client) {
	reset(c.held)
	c.held = -1
	t.counts.Closed++
}

func inode(fd int32) (uint64, error) {
	var s unix.Stat_t
	err := unix.Fstat(int(fd), &s)
	return s.Ino, err
}
