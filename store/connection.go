package store

import "github.com/scache/scache/timerwheel"

// Connection is an open descriptor with what a client needs to use it again. It is
// either in the store, or outside: prepared, or found.
//
//	Prepare -> outside -> Save -> in the store -> Find... -> outside
//	           outside -> PutBack -> in the store
//	           outside -> Discard or Release
//
// A Connection that is outside belongs to the caller, together with its
// descriptor, and ends in exactly one of Save, PutBack, Discard and Release.
type Connection struct {
	endpoint *endpoint
	property []byte
	fd       int32
	returned uint32 // how often it was found and put back
	serial   uint64 // see stamp

	older, newer *Connection // of the same endpoint
	timer        timerwheel.Timer[*Connection]
}

// FD returns the descriptor.
func (c *Connection) FD() int { return int(c.fd) }

// Endpoint returns the label of the endpoint, a view that ends with the Connection.
func (c *Connection) Endpoint() []byte { return c.endpoint.label }

// Deadline returns when the connection expires, or would have if it had not been found.
func (c *Connection) Deadline() Tick { return c.timer.When() }

// Property returns the endpoint property that was saved with the connection. It is
// a view that ends with the Connection.
func (c *Connection) Property() []byte { return c.property }

// Serial returns a number that no other saving has, greater than those before it.
func (c *Connection) Serial() uint64 { return c.serial }

// Saved returns when the connection was saved.
func (c *Connection) Saved() Tick { return stamped(c.serial) }

// Returned returns how often the connection was found and put back.
func (c *Connection) Returned() int { return int(c.returned) }

// Prepare makes a Connection, with no descriptor yet, that can be saved under an
// endpoint. The caller owns it; both texts are copied. It is nil if there is no room
// for them.
func (s *Store) Prepare(endpoint, property []byte) *Connection {
	if !s.makeRoom(len(endpoint) + len(property)) {
		return nil
	}
	return s.prepare(endpoint, property)
}

func (s *Store) prepare(endpoint, property []byte) *Connection {
	c := s.freeConnections.take()
	s.size.Text += len(property)
	c.fd, c.returned = -1, 0
	c.property = remember(c.property, property)
	c.endpoint = s.refer(endpoint)
	return c
}

// dropsPerSave bounds what is dropped for one connection, or binding, when the limit per
// endpoint or destination was lowered; else it is one. A Lowering does the rest.
const dropsPerSave = 64

// Save puts a prepared Connection into the store until deadline, as the newest of
// its endpoint. The store owns fd from now on.
func (s *Store) Save(c *Connection, fd int, deadline Tick) {
	s.makePlace(c.endpoint)
	c.fd, c.serial = int32(fd), s.stamp()
	s.insert(c, deadline)
}

// makePlace evicts what the limits leave no room for beside one more connection of an endpoint.
func (s *Store) makePlace(e *endpoint) {
	for n := 0; s.crowded(e) && n < dropsPerSave; n++ {
		s.evict(e.soonest())
	}
	for s.full() {
		s.Evict()
	}
}

// crowded reports whether an endpoint has as many connections as it may.
func (s *Store) crowded(e *endpoint) bool {
	limit := s.perEndpoint(e)
	return limit > 0 && int(e.connections) >= limit
}

// full reports whether there are as many connections in all as may be.
func (s *Store) full() bool {
	limit := s.Limits.Connections
	return limit > 0 && s.size.Connections >= limit
}

// Terms returns those of the Connection's endpoint; nil are none.
func (c *Connection) Terms() *Terms { return c.endpoint.terms }

// Govern gives the endpoint of a Connection other terms, or none. They hold for saves and
// finds from now on.
func (s *Store) Govern(c *Connection, terms *Terms) { c.endpoint.terms = terms }

// Decline ends a prepared Connection that is not to be cached, and closes fd.
func (s *Store) Decline(c *Connection, fd int) {
	c.fd = int32(fd)
	s.Discard(c, Declined)
}

// Evict closes the connection that would expire first. It returns false if there is
// none.
func (s *Store) Evict() bool {
	c, ok := s.connectionTimers.Soonest()
	if ok {
		s.evict(c)
	}
	return ok
}

func (s *Store) evict(c *Connection) {
	s.effort += dropEffort
	s.Remove(c, Evicted)
}

// PutBack returns a found Connection to the store, to the place and with the
// deadline that it had, and makes room for it as Save does. If that has passed, or there is room only
// for those that expire later, its descriptor is closed and the result is false.
func (s *Store) PutBack(c *Connection) bool {
	if c.timer.When() <= s.connectionTimers.Now() {
		s.Discard(c, ClientGone)
		return false
	}
	if s.expiresFirst(c) {
		s.Discard(c, Evicted)
		return false
	}
	s.makePlace(c.endpoint)
	c.returned++
	s.insert(c, c.timer.When())
	return true
}

// expiresFirst reports whether a Connection that is outside is what would have to make room for itself.
func (s *Store) expiresFirst(c *Connection) bool {
	if s.crowded(c.endpoint) && c.endpoint.soonest().Deadline() > c.Deadline() {
		return true
	}
	if !s.full() {
		return false
	}
	soonest, ok := s.connectionTimers.Soonest()
	return ok && soonest.Deadline() > c.Deadline()
}

// Discard ends a Connection that is outside the store, and closes its descriptor.
func (s *Store) Discard(c *Connection, why Reason) {
	fd := c.FD()
	s.Release(c)
	s.close(fd, why)
}

// Release ends a Connection that is outside the store, when it never had a
// descriptor or the caller has disposed of that.
func (s *Store) Release(c *Connection) {
	s.release(c.endpoint)
	c.endpoint = nil
	s.size.Text -= len(c.property)
	c.property = trim(c.property)
	s.freeConnections.give(c)
}

// Remove ends a connection that is in the store, and closes its descriptor.
func (s *Store) Remove(c *Connection, why Reason) {
	s.remove(c)
	s.Discard(c, why)
}

// FindEndpoint takes the endpoint's oldest connection out of the store, or the newest
// if that is the Order. It returns nil when there is none.
func (s *Store) FindEndpoint(endpoint []byte) *Connection {
	e := s.lookupEndpoint(endpoint)
	if e == nil || e.oldest == nil {
		return nil
	}
	return s.take(e)
}

// FindDestination takes a connection out of the store: what FindEndpoint finds for
// the first of the destination's bindings whose endpoint has one. property is the binding's, a
// view that ends with the next call of the store. The binding stays as it is. The
// result is nil when there is no such connection.
func (s *Store) FindDestination(destination []byte) (c *Connection, property []byte) {
	d := s.lookupDestination(destination)
	if d == nil {
		return nil, nil
	}
	for b := d.first; b != nil; b = b.next {
		if b.endpoint.oldest != nil {
			return s.take(b.endpoint), b.property
		}
		s.effort++
	}
	return nil, nil
}

func (s *Store) take(e *endpoint) *Connection {
	c := e.oldest
	if s.order(e) == NewestFirst {
		c = e.newest
	}
	s.remove(c)
	return c
}

// insert links c into its endpoint by its serial number, and starts its time. Its
// place is at the end when it is saved, and most often near the end at which connections
// are found when it is put back.
func (s *Store) insert(c *Connection, deadline Tick) {
	e := c.endpoint
	older, newer := e.newest, (*Connection)(nil)
	if s.order(e) == OldestFirst && older != nil && older.serial > c.serial {
		older, newer = nil, e.oldest
		for newer.serial < c.serial {
			older, newer = newer, newer.newer
			s.effort++
		}
	}
	for older != nil && older.serial > c.serial {
		older, newer = older.older, older
		s.effort++
	}
	c.older, c.newer = older, newer
	if older != nil {
		older.newer = c
	} else {
		e.oldest = c
	}
	if newer != nil {
		newer.older = c
	} else {
		e.newest = c
	}
	if e.connections == 0 {
		s.size.Endpoints++
	}
	e.connections++
	s.size.Connections++
	*s.connections.At(c.FD()) = c
	s.connectionTimers.Set(&c.timer, c, deadline)
	s.noteConnection(c.serial, c)
}

// remove is the reverse of insert. The endpoint stays as long as c refers to it.
func (s *Store) remove(c *Connection) {
	s.noteConnection(c.serial, nil)
	e := c.endpoint
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		e.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		e.newest = c.older
	}
	c.older, c.newer = nil, nil
	e.connections--
	if e.connections == 0 {
		s.size.Endpoints--
	}
	s.size.Connections--
	*s.connections.At(c.FD()) = nil
	s.connectionTimers.Stop(&c.timer)
}

// Connection returns the connection with that descriptor, nil if it is not in the store.
func (s *Store) Connection(fd int) *Connection { return *s.connections.At(fd) }

// Oldest returns the connection saved first at an endpoint, nil if it has none. It stays in the
// store.
func (s *Store) Oldest(endpoint []byte) *Connection {
	if e := s.lookupEndpoint(endpoint); e != nil {
		return e.oldest
	}
	return nil
}
