package server

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/handover"
	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
	"github.com/scache/scache/timerwheel"
)

// Taking over: this process is the successor of one that serves. It receives everything before it
// touches anything, and serves when the predecessor has said Go, or has died behind the
// last record.

// ErrDied is returned when the predecessor has died before we had everything: nobody serves now.
var ErrDied = errors.New("the server has died while it handed over")

// Predecessor is a server that has given us everything and waits for our word.
type Predecessor struct {
	server  *Server
	channel *handover.Channel
	process int // pidfd; -1: it cannot be seen from here
}

// TakeOver receives everything from the server that is connected by socket, which stays the
// caller's, before Run is called. through is the name here of the cache whose socket was connected
// to, if one was. Caches that the predecessor has and this server was not made with are added.
//
// Afterwards one of Confirm and Refuse has to be called. After an error the Server is of no use:
// what it has received was closed.
func (s *Server) TakeOver(socket int, through string) (*Predecessor, error) {
	p := &Predecessor{server: s, channel: handover.NewChannel(socket), process: -1}
	err := p.receive(through)
	if err == nil {
		return p, nil
	}
	s.abandonAll()
	p.channel.Discard()
	if errors.Is(err, io.EOF) {
		err = errors.New("the server has ended the hand-over")
		if p.died() {
			err = ErrDied
			s.descriptors.settle() // before another server counts them
		}
	} else {
		p.Refuse(err.Error())
	}
	p.close()
	return nil, err
}

// Confirm says that we have everything, and returns when we are the server. After an error the
// predecessor goes on.
func (p *Predecessor) Confirm() error {
	defer p.close()
	_ = p.channel.SendAnswer(handover.Answer{}) // if it does not listen any longer, it has said why, or is dead
	r, _, err := p.channel.Receive()
	if errors.Is(err, handover.ErrSilent) {
		// If it says Go while we give up, it hears that we do, or we hear the word.
		p.channel.Mute()
		if said, _, again := p.channel.Receive(); again == nil {
			r, err = said, nil
		}
	}
	if err == nil && r.Go == nil {
		err = errors.New("the server did not say go")
	}
	// One that is dead does not go on, and we lack nothing.
	if err == nil || errors.Is(err, io.EOF) && p.died() {
		p.server.begin()
		return nil
	}
	p.server.abandonAll()
	return fmt.Errorf("the server goes on: %w", err)
}

// Refuse tells the predecessor to go on, and why.
func (p *Predecessor) Refuse(reason string) {
	_ = p.channel.SendAnswer(handover.Answer{Failure: reason}) // our end tells it as well
	p.close()
}

func (p *Predecessor) close() {
	if p.process >= 0 {
		unix.Close(p.process)
		p.process = -1
	}
}

// died reports whether the predecessor's process has ended, or ends within a moment.
func (p *Predecessor) died() bool {
	if p.process < 0 {
		return false
	}
	for deadline := time.Now().Add(handover.Patience); ; {
		poll := []unix.PollFd{{Fd: int32(p.process), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, max(0, int(time.Until(deadline)/time.Millisecond)))
		if err != unix.EINTR {
			return n > 0
		}
	}
}

func (p *Predecessor) receive(through string) error {
	if err := p.channel.AskCredentials(); err != nil {
		return err
	}
	if err := p.ask(); err != nil {
		return err
	}
	if err := p.identify(through); err != nil {
		return err
	}
	r, descriptors, err := p.channel.Receive()
	if err != nil {
		return err
	}
	closeAll(descriptors)
	if r.Hello == nil {
		return errors.New("the server does not begin with a greeting")
	}
	switch {
	case r.Hello.Version > handover.Version:
		return fmt.Errorf("the server hands over by version %d, known here is %d", r.Hello.Version, handover.Version)
	case r.Hello.Started > monotonic():
		return errors.New("the server's clock is not ours: is it in another time namespace?")
	}
	return p.receiveAll(r.Hello, through)
}

// ask asks to take over.
func (p *Predecessor) ask() error {
	announcement, err := p.channel.ReceiveMessage()
	if err != nil {
		return err
	}
	if string(announcement) != proto.Announcement {
		return fmt.Errorf("that is no connection cache: it says %q", announcement)
	}
	if err := p.channel.SendMessage(proto.AppendTakeOver(nil)); err != nil {
		return err
	}
	msg, err := p.channel.ReceiveMessage()
	if err != nil {
		return err
	}
	reply, ok := proto.DecodeReply(msg)
	if reason, refused := proto.DecodeRefusal(msg); refused {
		return fmt.Errorf("the server refuses: %s", reason)
	}
	if !ok || reply.Status != proto.OK {
		return errors.New("the server does not hand over: it is Postfix's, or under master(8), or of an older version")
	}
	return nil
}

// identify sees to it that the predecessor is the same user. The kernel says who has sent, not
// who once made the listening socket, which may be systemd. One that has started us is trusted.
func (p *Predecessor) identify(through string) error {
	who := p.channel.Peer()
	if who == nil || through != "" && !ownUser(who.Uid) {
		return errors.New("the server runs as another user")
	}
	if process, err := unix.PidfdOpen(int(who.Pid), 0); err == nil {
		p.process = process
	}
	return nil
}

// receiveAll receives all that follows the greeting.
func (p *Predecessor) receiveAll(h *handover.Hello, through string) error {
	s := p.server
	s.continueClock(h)
	for _, c := range s.caches {
		c.store.Limits = store.Limits{} // until we serve: nothing is ours to close
	}
	var cache *cache
	for {
		r, descriptors, err := p.channel.Receive()
		if err != nil {
			return err
		}
		if cache == nil && (r.Bindings != nil || r.Connections != nil || r.Client != nil || r.End != nil) {
			closeAll(descriptors)
			return errors.New("what the server sends does not begin with a cache")
		}
		switch {
		case r.Stopped != nil:
			p.channel.StandStill()
			s.continueTimers(r.Stopped)
		case r.Cache != nil:
			name := r.Cache.Name
			if name == h.Through && through != "" {
				name = through
			}
			cache, err = s.restoreCache(name, r.Cache, descriptors)
		case r.Bindings != nil:
			for _, b := range r.Bindings {
				cache.restoring.Binding(store.Binding{Destination: b.Destination, Property: b.Property, Endpoint: b.Endpoint,
					Deadline: timerwheel.Tick(b.Deadline), Serial: b.Serial})
			}
			closeAll(descriptors)
		case r.Connections != nil && len(descriptors) == len(r.Connections):
			s.descriptors.open += len(descriptors)
			for i := range r.Connections {
				s.restoreConnection(cache, &r.Connections[i], descriptors[i])
			}
		case r.Client != nil && len(descriptors) == r.Client.Descriptors():
			s.descriptors.open += len(descriptors)
			err = s.restoreClient(cache, r.Client, descriptors)
		case r.End != nil:
			if have := s.count(); *r.End != have {
				return fmt.Errorf("the server speaks of %+v, and has sent %+v", *r.End, have)
			}
			return nil
		default: // a kind that we do not know
			closeAll(descriptors)
		}
		if err != nil {
			return err
		}
	}
}

// count is how much has been received.
func (s *Server) count() (n handover.End) {
	for _, c := range s.caches {
		n.Bindings += c.store.Size().Bindings
		n.Connections += c.store.Size().Connections
	}
	n.Clients = len(s.clients)
	return n
}

// continueClock sets the clock to the predecessor's: all times stay as they are.
func (s *Server) continueClock(h *handover.Hello) {
	s.started = time.Now().Add(time.Duration(h.Started - monotonic()))
	s.readClock()
	s.timers.Advance(s.clock.now)
	for _, c := range s.caches {
		c.store.Advance(c.now)
	}
}

// continueTimers has the predecessor's timers go off when they would have.
func (s *Server) continueTimers(r *handover.Stopped) {
	latest := s.clock.after(s.config.StatusUpdateTime)
	s.timers.Set(&s.report.Timer, &s.report, min(timerwheel.Tick(r.StatisticsDue), latest))
	if s.idle.Pending() {
		s.set(&s.idle, s.config.MaxIdle)
	}
}

// restoreCache takes a cache's listening sockets and counters, and drops what is gone.
func (s *Server) restoreCache(name string, r *handover.Cache, sockets []int) (*cache, error) {
	cache := s.cacheNamed(name)
	if cache == nil {
		s.config.Log.Infof("serving %s as well, as the server before", name)
		cache = s.newCache(name)
		cache.store.Advance(cache.now)
		s.caches = append(s.caches, cache)
		s.added = append(s.added, name)
	}
	if cache.restoring == nil {
		cache.restoring = cache.store.Restore()
	}
	for _, serial := range r.Gone {
		// Others may use the connections: nothing is said on them.
		if connection := cache.restoring.Withdraw(serial); connection != nil {
			s.forget(connection.FD())
			cache.store.Release(connection)
		}
	}
	cache.store.SkipTo(r.Serial)
	cache.stats.since = r.Since
	cache.stats.each(func(name string, counter *int) { *counter = int(r.Counters[name]) })
	cache.counters.each(func(name string, counter *int) { *counter = int(r.Counters["all "+name]) })
	s.descriptors.open += len(sockets)
	s.base += len(sockets)
	for i, fd := range sockets {
		if err := s.listen(cache, fd); err != nil {
			closeAll(sockets[i:])
			return nil, err
		}
		s.inherited = append(s.inherited, fd)
	}
	return cache, nil
}

func (s *Server) cacheNamed(name string) *cache {
	for _, c := range s.caches {
		if c.name == name {
			return c
		}
	}
	return nil
}

// restoreConnection puts a connection into its cache.
func (s *Server) restoreConnection(c *cache, r *handover.Connection, fd int) *store.Connection {
	t := c.judge.inherit(r.Terms)
	if t != nil {
		c.watch.polite(fd, t.quit)
	}
	connection := c.restoring.Connection(r.Endpoint, r.Property, fd, r.Serial, timerwheel.Tick(r.Deadline))
	if t != nil {
		c.store.Govern(connection, t.kept)
	}
	c.watch.begin(connection)
	return connection
}

// restoreClient makes a client go on where it was; the descriptors are its own.
func (s *Server) restoreClient(cache *cache, r *handover.Client, descriptors []int) error {
	if err := checkState(r); err != nil {
		closeAll(descriptors)
		return err
	}
	c := newConn(s, cache, descriptors[0])
	c.announce = r.Announce
	if err := s.admit(c); err != nil {
		closeAll(descriptors)
		return err
	}
	cache.counters.clientsEver-- // the server before has counted it
	rest := descriptors[1:]
	session := &c.session
	session.state = state(r.State)
	session.out = r.Output
	session.ttl = int32(r.TTL)
	session.terms, session.bound = cache.judge.inherit(r.Terms), r.Bound
	if r.TooLong {
		session.tooLong, session.op, session.framer = true, proto.Op(r.Op), proto.FramerAt(r.Framer)
	}
	c.in.bytes, c.kept = r.Input, cap(r.Input)
	c.handed = r.Handed
	if r.Prepared != nil {
		session.connection = cache.store.Prepare(r.Prepared.Endpoint, r.Prepared.Property)
		session.texts = int32(len(r.Prepared.Endpoint) + len(r.Prepared.Property))
	}
	if r.Found != nil {
		// Into the store, and out of it as by a find: the client has it already.
		session.connection = s.restoreConnection(cache, r.Found, rest[0])
		cache.restoring.Withdraw(r.Found.Serial)
		rest = rest[1:]
	}
	if r.HasArrived {
		c.in.fd = rest[0]
	}
	if r.Due > 0 {
		s.timers.Set(&c.timer, c, timerwheel.Tick(r.Due))
	}
	return nil
}

// checkState refuses what a newer version may know of a client, and this one does not.
func checkState(r *handover.Client) error {
	s := state(r.State)
	switch {
	case s < ready || s >= onErrand: // an errand does not travel
		return fmt.Errorf("the server speaks of a client in state %d, which is not known here", r.State)
	case (r.Prepared != nil) != (s == awaitingDescriptor),
		(r.Found != nil) != (awaitingGoAhead <= s && s <= awaitingAcknowledgement):
		return fmt.Errorf("the server speaks of a client %v, and of a connection that does not belong there, or of none", s)
	}
	return nil
}

// begin makes a server that has received everything look at what has happened meanwhile: no
// event tells of what came before its sockets were registered here. What its limits leave no
// room for leaves in the next turns.
func (s *Server) begin() {
	for _, c := range s.caches {
		c.restoring = nil
		c.lower()
	}
	s.adaptToLimit()
	for c := range s.clients {
		s.loop.Again(c.fd)
	}
}

// Added returns the names of the caches that TakeOver has added.
func (s *Server) Added() []string { return s.added }

// Listens reports whether a cache has a listening socket.
func (s *Server) Listens(name string) bool {
	return slices.ContainsFunc(s.listeners, func(l *listener) bool { return l.cache.name == name })
}

// abandonAll closes what was received: it is another process' still, or nobody's.
func (s *Server) abandonAll() {
	s.config.Beat = nil // we do not stop what we have never been
	s.release()
	closeAll(s.inherited)
	s.loop.Close()
}

func closeAll(descriptors []int) {
	for _, fd := range descriptors {
		unix.Close(fd)
	}
}
