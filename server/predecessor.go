package server

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/handover"
	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
	"github.com/scache/scache/timerwheel"
)

// Handing over: this process is the predecessor, a client asks to be its successor. It is sent what is
// cached while we go on serving, some in a turn. Then the loop stands still: it is sent what has
// changed meanwhile, and all that has no time to wait, from the clients to the last word. Nothing of
// ours is changed until then: so if the successor fails, we go on as if nothing had happened. What has
// left the caches already, and waits for a reply to QUIT, is not handed over: we see it off.

// ErrSucceeded is returned by Run when another process has taken over everything.
var ErrSucceeded = errors.New("another process has taken over")

// transfer is what is on its way to a client that is to be our successor.
type transfer struct {
	server  *Server
	client  *conn
	channel *handover.Channel
	caches  []*sentCache
	// steps are what is to be sent while we serve. Each call sends a record; done means that it was
	// the step's last.
	steps []func() (done bool, err error)
}

// sentCache is what the successor has of a cache, deadlines by serial numbers, and what has changed
// since it was begun.
type sentCache struct {
	*cache
	items   map[uint64]timerwheel.Tick
	journal *store.Journal
}

// continueSuccessions answers each client that asks to be our successor: it refuses, or sends the next
// record if there is room.
func (s *Server) continueSuccessions() {
	asking := s.successors
	s.successors = nil
	for _, c := range asking {
		if c.fd < 0 || c.session.state != succeeding { // gone meanwhile
			continue
		}
		if reason := s.refusal(c); reason != "" {
			s.refuseSuccessor(c, reason)
			continue
		}
		if s.transfer == nil {
			s.transfer = s.newTransfer(c)
		}
		s.transfer.proceed()
	}
}

// refusal tells why a client must not take over, if so.
func (s *Server) refusal(c *conn) string {
	who, err := unix.GetsockoptUcred(c.fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	switch {
	case err != nil || !c.introduced && !ownUser(who.Uid):
		return "only the server's own user may"
	case s.stopping:
		return "the server is stopping"
	case s.transfer != nil && s.transfer.client != c:
		return "another process is about to"
	}
	return ""
}

func (s *Server) refuseSuccessor(c *conn, reason string) {
	if t := c.transfer(); t != nil { // it takes records by now
		t.fail(errors.New(reason))
		return
	}
	c.session.fault("%v: refused: %s", proto.TakeOver, reason)
	c.session.out = proto.AppendRefusal(c.session.out, proto.Failed, reason)
	c.session.state = ready
	s.loop.Again(c.fd)
}

// transfer returns the one that is to the client, or nil.
func (c *conn) transfer() *transfer {
	if t := c.server.transfer; t != nil && t.client == c {
		return t
	}
	return nil
}

func (s *Server) newTransfer(c *conn) *transfer {
	t := &transfer{server: s, client: c, channel: handover.NewChannel(c.fd)}
	t.steps = append(t.steps, t.greet)
	for _, cache := range s.caches {
		sent := &sentCache{cache, make(map[uint64]timerwheel.Tick), cache.store.BeginJournal()}
		t.caches = append(t.caches, sent)
		connections, bindings := cache.store.Walk(), cache.store.Walk()
		t.steps = append(t.steps,
			func() (bool, error) {
				return true, t.channel.Push(&handover.Record{Cache: &handover.Cache{Name: cache.name}})
			},
			func() (bool, error) { return t.copyConnections(sent, &connections) },
			func() (bool, error) { return t.copyBindings(sent, &bindings) })
	}
	return t
}

// proceed sends a record, if there is room for it, or the rest if all records were sent.
func (t *transfer) proceed() {
	switch room, err := t.channel.Room(); {
	case err != nil:
		t.fail(err)
		return
	case !room:
		t.client.unsent(unix.EAGAIN)
		return
	case len(t.steps) == 0:
		t.finish()
		return
	}
	done, err := t.steps[0]()
	if err != nil {
		t.fail(err)
		return
	}
	if done {
		t.steps = t.steps[1:]
	}
	s := t.server
	s.timers.Set(&t.client.timer, t.client, s.clock.after(handover.Patience))
	s.loop.Again(t.client.fd)
}

// fail ends the transfer: its client is not our successor.
func (t *transfer) fail(err error) {
	t.server.config.Log.Warningf("%s has not taken over: %v", clientName{&t.client.session}, err)
	t.client.close()
}

// end is called when the client is gone, which is not our successor.
func (t *transfer) end() {
	t.channel.Discard()
	for _, c := range t.caches {
		c.store.EndJournal()
	}
	t.server.transfer = nil
}

func (t *transfer) greet() (done bool, err error) {
	s := t.server
	// Of the answer: we may have made the client's socket ourselves.
	if err := t.channel.AskCredentials(); err != nil {
		return false, err
	}
	if err := t.channel.SendMessage(proto.AppendStatus(nil, proto.OK)); err != nil {
		return false, err
	}
	return true, t.channel.Push(&handover.Record{Hello: &handover.Hello{
		Version: handover.Version,
		Started: monotonic() - time.Since(s.started).Nanoseconds(),
		Through: t.client.session.cache.name,
	}})
}

// copyConnections sends connections. They stay ours, and can be found meanwhile.
func (t *transfer) copyConnections(c *sentCache, walk *store.Walk) (done bool, err error) {
	var b batch
	for looks := 0; looks < handover.Batch && !b.full() && !done; looks++ {
		connection, more := c.store.NextConnection(walk)
		if done = !more; connection != nil {
			c.items[connection.Serial()] = connection.Deadline()
			b.addConnection(c.cache, connection)
		}
	}
	return done, t.channel.Push(&b.record, b.descriptors...)
}

// copyBindings sends bindings.
func (t *transfer) copyBindings(c *sentCache, walk *store.Walk) (done bool, err error) {
	var b batch
	for looks := 0; looks < handover.Batch && !b.full() && !done; looks++ {
		binding, any, more := c.store.NextBinding(walk)
		if done = !more; any {
			c.items[binding.Serial] = binding.Deadline
			b.addBinding(binding)
		}
	}
	return done, t.channel.Push(&b.record)
}

// finish stands still until the client is our successor, or we go on.
func (t *transfer) finish() {
	s, begun := t.server, time.Now()
	pid, count, err := t.standStill()
	pause := time.Since(begun).Round(time.Microsecond)
	if err != nil {
		t.fail(fmt.Errorf("%w; going on after %v", err, pause))
		return
	}
	s.succeeded = true
	s.leaveListeners()
	s.config.Log.Infof("process %d has taken over: connections=%d bindings=%d clients=%d within %v",
		pid, count.Connections, count.Bindings, count.Clients, pause)
	s.release()
	if s.config.Succeeded != nil {
		s.config.Succeeded(pid) // which may take its time
	}
}

// standStill sends the rest to the client, hears that it has everything, and says Go. After an error it
// is not our successor.
func (t *transfer) standStill() (pid int, count handover.End, err error) {
	t.channel.StandStill()
	if count, err = t.sendRest(); err != nil {
		return 0, count, err
	}
	if err = t.channel.ReceiveAnswer(); err != nil {
		t.channel.Retract() // else, if we ended soon, the successor would take us for dead
		return 0, count, err
	}
	if who := t.channel.Peer(); who != nil {
		pid = int(who.Pid)
	}
	return pid, count, errors.Join(t.channel.Send(&handover.Record{Go: &handover.Go{}}), t.channel.Flush())
}

// sendRest sends everything from Stopped to End.
func (t *transfer) sendRest() (count handover.End, err error) {
	s := t.server
	if err := t.channel.Send(&handover.Record{Stopped: &handover.Stopped{
		StatisticsDue: uint64(s.report.When()),
	}}); err != nil {
		return count, err
	}
	for _, c := range t.caches {
		if err := t.sendChanges(c); err != nil {
			return count, err
		}
		count.Bindings += c.store.Size().Bindings
		count.Connections += c.store.Size().Connections
		clients, err := t.sendClients(c.cache)
		if err != nil {
			return count, err
		}
		count.Clients += clients
	}
	return count, errors.Join(t.channel.Send(&handover.Record{End: &count}), t.channel.Flush())
}

// sendChanges sends a cache with what the successor has not, or has and should not.
func (t *transfer) sendChanges(c *sentCache) error {
	record := c.record()
	var bindings []store.Binding
	for serial, b := range c.journal.Bindings() {
		switch sent, ok := c.items[serial]; {
		case ok && b.Gone():
			record.Gone = append(record.Gone, serial)
		case !b.Gone() && !(ok && sent == b.Deadline):
			bindings = append(bindings, b)
		}
	}
	var connections []*store.Connection
	for serial, connection := range c.journal.Connections() {
		switch _, ok := c.items[serial]; {
		case ok && connection == nil:
			record.Gone = append(record.Gone, serial)
		case !ok && connection != nil:
			connections = append(connections, connection)
		}
	}
	var sockets []int
	for _, l := range t.server.listeners {
		if l.cache == c.cache {
			sockets = append(sockets, l.fd)
		}
	}
	if err := t.channel.Send(&handover.Record{Cache: record}, sockets...); err != nil {
		return err
	}
	var b batch
	for i, binding := range bindings {
		b.addBinding(binding)
		if err := t.sendBatch(&b, i == len(bindings)-1); err != nil {
			return err
		}
	}
	for i, connection := range connections {
		b.addConnection(c.cache, connection)
		if err := t.sendBatch(&b, i == len(connections)-1); err != nil {
			return err
		}
	}
	return nil
}

// sendBatch sends a batch that is full, or the last of its kind, and empties it.
func (t *transfer) sendBatch(b *batch, last bool) error {
	if !b.full() && !last {
		return nil
	}
	err := t.channel.Send(&b.record, b.descriptors...)
	*b = batch{}
	return err
}

// sendClients sends the clients of a cache, but for the successor.
func (t *transfer) sendClients(c *cache) (count int, err error) {
	for client := range t.server.clients {
		if client.session.cache != c || client == t.client {
			continue
		}
		count++
		record, descriptors := client.record()
		if err := t.channel.Send(&handover.Record{Client: record}, descriptors...); err != nil {
			return count, err
		}
	}
	return count, nil
}

// batch is a record of bindings, or of connections.
type batch struct {
	record      handover.Record
	descriptors []int
	text        int // bytes in it
}

func (b *batch) full() bool {
	return len(b.record.Bindings)+len(b.record.Connections) >= handover.Batch || b.text >= handover.BatchText
}

func (b *batch) addBinding(of store.Binding) {
	b.record.Bindings = append(b.record.Bindings, handover.Binding{Destination: of.Destination, Property: of.Property, Endpoint: of.Endpoint,
		Deadline: uint64(of.Deadline), Serial: of.Serial})
	b.text += len(of.Destination) + len(of.Property) + len(of.Endpoint)
}

func (b *batch) addConnection(cache *cache, c *store.Connection) {
	b.record.Connections = append(b.record.Connections, *cache.connectionRecord(c))
	b.descriptors = append(b.descriptors, c.FD())
	b.text += len(c.Endpoint()) + len(c.Property())
}

func (c *cache) record() *handover.Cache {
	record := &handover.Cache{
		Name:     c.name,
		Serial:   c.store.Serial(),
		Since:    c.stats.since,
		Counters: make(map[string]int64),
	}
	note := func(name string, counter *int) { record.Counters[name] = int64(*counter) }
	reported := c.stats
	reported.displaced -= c.store.Displaced() // the successor's store counts from 0
	reported.each(note)
	handed := c.handed()
	handed.each(func(name string, counter *int) { note("all "+name, counter) })
	return record
}

func (c *cache) connectionRecord(connection *store.Connection) *handover.Connection {
	return &handover.Connection{
		Endpoint: connection.Endpoint(),
		Property: connection.Property(),
		Deadline: uint64(connection.Deadline()),
		Serial:   connection.Serial(),
		Terms:    c.termsOf(connection).record(),
	}
}

// record is a client between two wakes.
func (c *conn) record() (record *handover.Client, descriptors []int) {
	s := &c.session
	record = &handover.Client{
		Announce: c.announce,
		State:    int(s.state),
		Input:    c.in.bytes,
		Output:   s.out,
		Handed:   c.handed,
		Due:      dueTick(&c.timer),
		TooLong:  s.tooLong,
		TTL:      int(s.ttl),
		Terms:    s.terms.record(),
		Bound:    s.bound,
	}
	if s.state == onErrand {
		// It has to ask again: what it has been told so far ends here.
		record.State = int(ended)
	}
	if s.tooLong {
		// The framer goes on behind what it has seen. That is dropped anyway.
		record.Op, record.Framer, record.Input = int(s.op), s.framer.State(), c.in.bytes[s.scanned:]
	}
	descriptors = append(descriptors, c.fd)
	switch {
	case s.connection == nil:
	case s.state == awaitingDescriptor:
		record.Prepared = s.cache.connectionRecord(s.connection)
	default:
		record.Found = s.cache.connectionRecord(s.connection)
		descriptors = append(descriptors, s.connection.FD())
	}
	if c.in.fd >= 0 {
		record.HasArrived = true
		descriptors = append(descriptors, c.in.fd)
	}
	return record, descriptors
}

// dueTick is when a timer is due; 0 if it is not set.
func dueTick(t *timerwheel.Timer[timed]) uint64 {
	if !t.Pending() {
		return 0
	}
	return uint64(t.When())
}

// monotonic is CLOCK_MONOTONIC in nanoseconds: the clock that package time reads, and the
// same in all processes since the system has started.
func monotonic() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(fmt.Errorf("clock_gettime: %w", err)) // it has no way to fail
	}
	return now.Nano()
}

// leaveListeners closes our descriptors of the listening sockets, before anybody hears of the
// successor: when it closes its own nobody listens any longer, whomever we see off still.
func (s *Server) leaveListeners() {
	s.beginStop()
	for _, l := range s.listeners {
		unix.Close(l.fd)
	}
	s.listeners, s.inherited = nil, nil
}

// release closes our descriptors of what another process has, or has kept, and so takes nothing from
// anybody; what has left the caches before is seen off still. Then Run returns.
func (s *Server) release() {
	for c := range s.clients {
		_, descriptors := c.record()
		for _, fd := range descriptors {
			s.forget(fd)
		}
		s.timers.Stop(&c.timer)
		c.fd = -1
	}
	clear(s.clients)
	for _, c := range s.caches {
		for connection := range c.store.Connections() {
			s.forget(connection.FD())
		}
		s.timers.Stop(&c.watch.timer.Timer)
		c.store = store.New(nil)
	}
	s.held = 0
	s.timers.Stop(&s.report.Timer) // the successor has these
	s.beginStop()
	s.cleared = true
	s.set(&s.grace, farewellGrace)
}

// forget closes our descriptor of what another process has as well, or had.
func (s *Server) forget(fd int) {
	s.loop.Remove(fd)
	s.descriptors.close(fd)
}
