package server

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/handover"
	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
	"github.com/scache/scache/timerwheel"
)

// Handing over: this process is the predecessor, a client asks to be its successor. The loop
// stands still from the first record to the last word, and nothing of ours is changed until
// then: so if the successor fails, we go on as if nothing had happened. What has left the
// caches already, and waits for a reply to QUIT, is not handed over: we see it off.

// ErrSucceeded is returned by Run when another process has taken over everything.
var ErrSucceeded = errors.New("another process has taken over")

// answerSuccessors decides about those who want to be our successor.
func (s *Server) answerSuccessors() {
	asking := s.successors
	s.successors = nil
	for _, c := range asking {
		switch reason := s.refusal(c); {
		case c.fd < 0 || c.session.state != succeeding: // gone meanwhile, or in the list twice
		case reason != "":
			c.session.fault("%v: refused: %s", proto.TakeOver, reason)
			c.session.out = proto.AppendRefusal(c.session.out, proto.Failed, reason)
			c.session.state = ready
			s.loop.Again(c.fd)
		default:
			s.handOver(c)
		}
	}
}

// refusal tells why a client must not take over, if so.
func (s *Server) refusal(c *conn) string {
	who, err := unix.GetsockoptUcred(c.fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	switch {
	case err != nil || int(who.Uid) != os.Geteuid():
		return "only the server's own user may"
	case s.stop:
		return "the server is stopping"
	}
	return ""
}

// handOver makes a client our successor, or goes on.
func (s *Server) handOver(c *conn) {
	// The collector would take a third of the time; as it would the successor's.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	name := clientName{&c.session}.String()
	begun := time.Now()
	pid, count, err := s.sendAll(c)
	if err != nil {
		s.config.Log.Warningf("%s has not taken over: %v; going on after %v", name, err, time.Since(begun).Round(time.Microsecond))
		c.close()
		return
	}
	s.succeeded = true
	if s.config.Succeeded != nil {
		s.config.Succeeded(pid)
	}
	s.config.Log.Infof("process %d has taken over: %d connections, %d bindings, %d clients, within %v",
		pid, count.Connections, count.Bindings, count.Clients, time.Since(begun).Round(time.Microsecond))
	s.release()
}

// sendAll sends everything to a client, hears that it has it, and says Go. After an error it
// is not our successor.
func (s *Server) sendAll(c *conn) (pid int, count handover.End, err error) {
	channel := handover.NewChannel(c.fd)
	if err = s.sendState(channel, c, &count); err != nil {
		return 0, count, err
	}
	if err = channel.ReceiveAnswer(); err != nil {
		channel.Retract() // else, if we ended soon, the successor would take us for dead
		return 0, count, err
	}
	if who := channel.Peer(); who != nil {
		pid = int(who.Pid)
	}
	return pid, count, errors.Join(channel.Send(&handover.Record{Go: &handover.Go{}}), channel.Flush())
}

// sendState sends everything up to End.
func (s *Server) sendState(channel *handover.Channel, c *conn, count *handover.End) error {
	// Of the answer: we may have made the client's socket ourselves.
	if err := handover.AskCredentials(c.fd); err != nil {
		return err
	}
	if err := channel.SendMessage(proto.AppendStatus(nil, proto.OK)); err != nil {
		return err
	}
	if err := channel.Send(&handover.Record{Hello: s.hello(c)}); err != nil {
		return err
	}
	for _, cache := range s.caches {
		if err := s.sendCache(channel, cache, c, count); err != nil {
			return err
		}
	}
	return errors.Join(channel.Send(&handover.Record{End: count}), channel.Flush())
}

func (s *Server) hello(c *conn) *handover.Hello {
	return &handover.Hello{
		Version:       handover.Version,
		Started:       monotonic() - time.Since(s.started).Nanoseconds(),
		Through:       c.session.cache.name,
		StatisticsDue: uint64(s.statistics.timer.When()),
		IdleDue:       dueTick(&s.idle.timer),
		Served:        s.served,
	}
}

// sendCache sends a cache and its clients, but for the successor.
func (s *Server) sendCache(channel *handover.Channel, c *cache, successor *conn, count *handover.End) error {
	var sockets []int
	for _, l := range s.listeners {
		if l.cache == c {
			sockets = append(sockets, l.fd)
		}
	}
	if err := channel.Send(&handover.Record{Cache: c.record()}, sockets...); err != nil {
		return err
	}
	if err := sendBindings(channel, c.store, count); err != nil {
		return err
	}
	if err := sendConnections(channel, c, count); err != nil {
		return err
	}
	for client := range s.clients {
		if client.session.cache != c || client == successor {
			continue
		}
		count.Clients++
		record, descriptors := client.record()
		if err := channel.Send(&handover.Record{Client: record}, descriptors...); err != nil {
			return err
		}
	}
	return nil
}

func sendBindings(channel *handover.Channel, s *store.Store, count *handover.End) error {
	b := batch[handover.Binding]{send: func(bindings []handover.Binding, _ []int) error {
		count.Bindings += len(bindings)
		return channel.Send(&handover.Record{Bindings: bindings})
	}}
	for of := range s.Bindings() {
		record := handover.Binding{Destination: of.Destination, Property: of.Property, Endpoint: of.Endpoint, Deadline: uint64(of.Deadline), Serial: of.Serial}
		if err := b.add(record, len(of.Destination)+len(of.Property)+len(of.Endpoint)); err != nil {
			return err
		}
	}
	return b.flush()
}

func sendConnections(channel *handover.Channel, cache *cache, count *handover.End) error {
	b := batch[handover.Connection]{send: func(connections []handover.Connection, descriptors []int) error {
		count.Connections += len(connections)
		return channel.Send(&handover.Record{Connections: connections}, descriptors...)
	}}
	for c := range cache.store.Connections() {
		if err := b.add(*cache.connectionRecord(c), len(c.Endpoint())+len(c.Property()), c.FD()); err != nil {
			return err
		}
	}
	return b.flush()
}

// batch collects what goes into one record.
type batch[T any] struct {
	items       []T
	descriptors []int
	text        int // bytes in it
	send        func(items []T, descriptors []int) error
}

func (b *batch[T]) add(item T, text int, descriptors ...int) error {
	b.items, b.descriptors = append(b.items, item), append(b.descriptors, descriptors...)
	b.text += text
	if len(b.items) < handover.Batch && b.text < handover.BatchText {
		return nil
	}
	return b.flush()
}

func (b *batch[T]) flush() error {
	err := b.send(b.items, b.descriptors)
	b.items, b.descriptors, b.text = b.items[:0], b.descriptors[:0], 0
	return err
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

// release closes our descriptors of what another process has, or has kept, and so takes nothing from
// anybody; what has left the caches before is seen off still. Then Run returns.
func (s *Server) release() {
	forget := func(fd int) {
		s.loop.Remove(fd)
		unix.Close(fd)
		s.descriptors.open--
	}
	for c := range s.clients {
		_, descriptors := c.record()
		for _, fd := range descriptors {
			forget(fd)
		}
		s.timers.Stop(&c.timer)
		c.fd = -1
	}
	clear(s.clients)
	for _, c := range s.caches {
		for connection := range c.store.Connections() {
			c.watch.end(connection.FD())
			forget(connection.FD())
		}
		s.timers.Stop(&c.watch.timer.timer)
		c.store = store.New(nil)
	}
	s.beginStop()
	s.cleared = true
	s.set(&s.grace, farewellGrace)
}
