package server

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/handover"
	"github.com/scache/scache/proto"
	"github.com/scache/scache/timerwheel"
)

// conn is a client's connection to the server: the input and output of a session.
// It keeps bytes only while a request is incomplete or a reply is not read: else
// they live in buffers that all clients share.
type conn struct {
	server  *Server
	fd      int // -1 when closed
	session session
	in      input
	inLent  bool // in.bytes is part of the shared buffer
	kept    int  // the size of the buffer that in.bytes is part of, if it is not lent
	held    int  // bytes that we keep for the client
	handed  int  // descriptors it was sent, since we last saw that it had read all

	introduced bool // by Introduce: we have started it
	announce   bool // the protocol, first of all
	budget     int  // what the client may do yet before it is another's turn
	hungUp     bool // there will be an end of file
	drained    bool // there was nothing more to read
	wantWrite  bool // the loop reports when there is room to write
	crowded    bool // its descriptor cannot be sent for the time being
	gaveWay    bool // its errand waits for a moment
	moved      bool // the client did what it owed us, since the timer was set
	unreported
	timer timerwheel.Timer[timed]
}

const (
	// wakeBudget bounds what one client gets done before it is another's turn: the
	// number of messages, of which a read counts as some, and so does all that takes more
	// than a message usually does: see cache.spent.
	wakeBudget         = 32
	fillCost           = 4
	bindingsPerMessage = 64

	readSize = 1 << 16
	// enoughOutput is how many bytes of replies are collected before they are
	// sent. While a client does not read them, its requests are not read either:
	// so it makes us keep that, one reply more, and one read buffer.
	enoughOutput = 1 << 16
	// enoughToWake is how many bytes of a long reply are collected before they are
	// sent: each time, its reader wakes and takes a processor.
	enoughToWake = 1 << 14
	// maxUnread bounds how many descriptors are on their way to one client: the
	// kernel bounds them by user, and others have the same one.
	maxUnread = 8
	// lastByte is what the kernel counts as unread still when it reports that all was read: it
	// holds on to a byte of each message until it has told us (net/core/sock.c, sock_wfree), and
	// would tell us nothing more. A message that is unread counts for hundreds.
	lastByte = 1
	// largestSpare is how large a shared buffer may grow before it is dropped.
	largestSpare = 1 << 18
)

// newConn makes the client of a cache that is connected on fd, which it owns from now on.
func newConn(s *Server, cache *cache, fd int) *conn {
	return &conn{
		server:  s,
		fd:      fd,
		session: session{cache: cache, client: fd},
		in:      input{fd: -1},
	}
}

// Ready implements loop.Handler.
func (c *conn) Ready(_ int, hangup bool) (again bool) {
	c.hungUp = c.hungUp || hangup
	c.drained = false
	lent := c.session.out == nil
	if lent {
		c.session.out = c.server.replies[:0]
	}
	if c.announce {
		c.announce = false
		c.session.out = append(c.session.out, proto.Announcement...)
	}
	again = c.work()
	if again && c.session.state == onErrand {
		again = !c.server.errands.giveWay(c)
	}
	if c.fd >= 0 {
		c.settle(lent)
	}
	if c.session.state == succeeding {
		c.server.successors = append(c.server.successors, c)
	}
	return again && c.fd >= 0
}

// work does what can be done: flush, step, fill, and again. It returns false when
// that would block or the client is gone, true when it has had its share.
func (c *conn) work() (again bool) {
	c.session.cache.spent() // what others have spent, and lower limits, is not charged to this client
	for c.budget = wakeBudget; c.budget > 0; {
		if !c.flush() {
			return false
		}
		if c.step() {
			continue
		}
		if !c.fill() {
			return false
		}
	}
	return true
}

// flush sends the replies, and then the descriptor that is to be handed over. It
// returns false if something is left.
func (c *conn) flush() bool {
	if out := c.session.out; len(out) > 0 && !c.collecting() {
		n, err := c.server.wire.Send(c.fd, out)
		c.session.cache.counters.sent += n
		c.session.out = out[:copy(out, out[n:])]
		c.moved = c.moved || n > 0
		if n < len(out) {
			return c.unsent(err)
		}
	}
	if c.session.state != handingOver {
		return true
	}
	if c.handed >= maxUnread {
		if unread, err := unix.IoctlGetInt(c.fd, unix.SIOCOUTQ); err != nil || unread > lastByte {
			return c.unsent(err)
		}
		c.handed = 0
	}
	if err := c.server.wire.SendDescriptor(c.fd, c.session.connection.FD()); err != nil {
		return c.unsent(err)
	}
	c.handed++
	c.session.cache.counters.sent++
	c.session.handedOver()
	c.moved, c.crowded = true, false
	return true
}

// collecting reports whether the reply goes on, and what there is of it is not worth
// sending yet.
func (c *conn) collecting() bool {
	return c.session.state == onErrand && len(c.session.out) < enoughToWake
}

// unsent handles what the kernel did not take: the client has to read first, or
// is gone.
func (c *conn) unsent(err error) bool {
	switch err {
	case nil, unix.EAGAIN:
		if !c.wantWrite {
			c.wantWrite = true
			if err := c.server.loop.WantWrite(c.fd); err != nil {
				c.fail(err)
			}
		}
	case unix.ETOOMANYREFS, unix.ENOBUFS, unix.ENOMEM:
		// The kernel limits a user's descriptors on their way, or has no memory.
		// No event tells when that is over.
		if !c.crowded {
			c.crowded = true
			c.session.cache.stats.delayedHandovers++
			c.session.fault("waits: %v", err)
		}
		c.callLater()
	case unix.EPIPE, unix.ECONNRESET:
		c.close()
	default:
		c.fail(err)
	}
	return false
}

// step lets the session take what is there, as long as the replies are few.
func (c *conn) step() (stepped bool) {
	for c.budget > 0 && c.hasWork() && len(c.session.out) < enoughOutput && c.session.step(&c.in) {
		c.budget -= 1 + c.session.cache.spent()/bindingsPerMessage
		stepped = true
	}
	c.moved = c.moved || stepped
	return stepped
}

// hasWork reports whether there is something for the session to take, or to go on with.
func (c *conn) hasWork() bool {
	if c.session.state == onErrand {
		return !c.gaveWay
	}
	return len(c.in.bytes) > c.session.scanned
}

// fill receives what the client has sent, if the session can do nothing with what
// is there. It returns false if there is nothing more now, or ever.
func (c *conn) fill() bool {
	if c.session.state == ended {
		c.close()
		return false
	}
	if c.drained || c.session.state == succeeding || c.session.state == onErrand {
		return false
	}
	c.keepInput()
	c.budget -= fillCost
	buffer := c.server.received[:]
	n, err := c.receive(buffer)
	switch {
	case err == unix.EAGAIN:
		return false
	case err == unix.ECONNRESET:
		c.session.lost()
		c.close()
		return false
	case err != nil:
		c.fail(err)
		return false
	case n == 0:
		c.session.end(&c.in)
		return true
	}
	c.session.cache.counters.received += n
	if len(c.in.bytes) > 0 {
		c.in.bytes = append(c.in.bytes, buffer[:n]...)
		c.kept = max(c.kept, cap(c.in.bytes))
	} else {
		c.in.bytes, c.inLent = buffer[:n], true
	}
	return true
}

// receive reads into buffer, and a descriptor only where one is due. Elsewhere the
// kernel closes what a client sends.
func (c *conn) receive(buffer []byte) (n int, err error) {
	if c.session.state != awaitingDescriptor {
		n, err = c.server.wire.Receive(c.fd, buffer)
		c.learn(n > 0)
		if err == nil && n < len(buffer) && !c.hungUp {
			// Nothing follows, but for one case that the kernel does not tell
			// from it: it stops reading behind a descriptor, and there was one
			// where none belongs. There will be no event for what is behind
			// it, so look again, but not each time.
			c.assumeDrained()
		}
		return n, err
	}
	// One byte, so that the descriptor is this byte's, whatever it was written
	// with, and behind it there may be more.
	c.server.makeRoomIfFull()
	n, fd, lost, err := c.server.wire.ReceiveDescriptor(c.fd, buffer[:1])
	switch {
	case lost && fd < 0:
		c.session.cache.stats.lost++
		c.session.fault("a descriptor was lost: there was no room")
		ignoreSenders(c.fd) // or there was, but for that
		c.server.adaptToLimit()
		c.server.makeRoom() // for the next one
	case lost:
		c.session.fault("descriptors were lost: the client sent several at once")
	}
	if fd >= 0 {
		c.server.descriptors.open++
	}
	c.in.fd = fd
	if c.behind = c.glued; fd >= 0 && !c.glued && !c.hungUp {
		// Nearly all clients wait for the status now. One that does not is
		// known from its second time on.
		c.assumeDrained()
	}
	return n, err
}

// keepInput copies what is left of the input out of the shared buffer.
func (c *conn) keepInput() {
	switch n := len(c.in.bytes); {
	case n == 0:
		c.in.bytes, c.kept = nil, 0
	case c.inLent || n < c.kept/4: // what was in front of it is not needed any longer
		c.in.bytes = slices.Clone(c.in.bytes)
		c.kept = cap(c.in.bytes)
	}
	c.inLent = false
}

// settle ends a wake: the shared buffers go back, and the time starts in which the
// client has to do what it owes us, or stops.
func (c *conn) settle(lent bool) {
	c.keepInput()
	switch out := c.session.out; {
	case len(out) > 0 && lent:
		c.session.out = slices.Clone(out)
	case len(out) == 0:
		if lent && cap(out) <= largestSpare {
			c.server.replies = out
		}
		c.session.out = nil
	}
	switch {
	case !c.session.waiting():
		c.server.timers.Stop(&c.timer)
	case c.moved || !c.timer.Pending():
		c.server.timers.Set(&c.timer, c, c.server.clock.after(c.server.config.IPCTimeout))
	}
	c.moved = false
	if held := c.kept + cap(c.session.out) + c.session.prepared(); held != c.held {
		more := held - c.held
		c.held = held
		c.server.hold(more) // may close this client, or others
	}
}

// due implements timed: the client has kept us waiting for ipc_timeout.
func (c *conn) due() {
	if t := c.transfer(); t != nil {
		t.fail(handover.ErrSilent)
		return
	}
	c.session.fault("timed out: %v", c.session.state)
	c.close()
}

// fail closes after an error that is not an ordinary departure.
func (c *conn) fail(err error) {
	c.session.fault("%v: %v", c.session.state, err)
	c.close()
}

// close ends the client. What it was to get goes back into the store, what it has
// sent and nobody took is closed.
func (c *conn) close() {
	c.session.abandon()
	if t := c.transfer(); t != nil {
		t.end()
	}
	if c.in.fd >= 0 {
		c.server.descriptors.close(c.in.fd)
		c.in.fd = -1
	}
	c.server.timers.Stop(&c.timer)
	c.server.loop.Remove(c.fd)
	c.server.descriptors.closeClient(c.fd)
	c.fd = -1
	c.server.held -= c.held
	c.server.departed(c)
}
