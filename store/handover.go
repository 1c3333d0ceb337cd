package store

import "iter"

// What a server needs to hand its cache over to the process that takes its place: all that is
// stored, and the way back in.

// Connections returns all connections in the store, those of one endpoint from the oldest to the
// newest. The store must not be changed meanwhile.
func (s *Store) Connections() iter.Seq[*Connection] {
	return func(yield func(*Connection) bool) {
		for e := range s.endpoints.all() {
			for c := e.oldest; c != nil; c = c.newer {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// Serial returns that of what was saved last.
func (s *Store) Serial() uint64 { return s.last }

// SkipTo makes the serial numbers go on behind serial.
func (s *Store) SkipTo(serial uint64) { s.last = max(s.last, serial) }

// Restoring puts into a store what was in another one, whose clock is the same, and takes some of it
// out again. Limits do not hold for that, see Lower.
type Restoring struct {
	*Store
	restored  map[uint64]*binding // by serial number
	connected map[uint64]*Connection
}

// Restore begins to restore.
func (s *Store) Restore() *Restoring {
	return &Restoring{s, make(map[uint64]*binding), make(map[uint64]*Connection)}
}

// Binding saves a binding as it was: at its place by its serial number. It is not counted by Bound. If
// it is there already it gets the deadline.
func (s *Restoring) Binding(b Binding) {
	key := s.bindingKey(b.Destination, b.Property, b.Endpoint)
	at := s.lookupBinding(key)
	if at == nil {
		at = s.bind(key, b.Destination, b.Property, b.Endpoint)
		s.bound--
		of := at.binding
		of.serial = b.Serial
		unlink(of)
		previous := of.destination.last
		if first := of.destination.first; first != nil && first.serial > b.Serial {
			previous = nil // places are used again in reverse, see places
		}
		for previous != nil && previous.serial > b.Serial {
			previous = previous.previous
		}
		link(of, previous)
		s.restored[b.Serial] = of
	}
	s.expire(at, b.Deadline)
}

// Connection saves a connection as it was. The store owns fd from now on.
func (s *Restoring) Connection(endpoint, property []byte, fd int, serial uint64, deadline Tick) *Connection {
	c := s.prepare(endpoint, property)
	c.fd, c.serial = int32(fd), serial
	s.insert(c, deadline)
	s.connected[serial] = c
	return c
}

// Withdraw takes out what has that serial number, if anything. A connection is returned, as by a find.
func (s *Restoring) Withdraw(serial uint64) *Connection {
	if b := s.restored[serial]; b != nil {
		delete(s.restored, serial)
		s.dropBinding(b)
	}
	c := s.connected[serial]
	if c != nil {
		delete(s.connected, serial)
		s.remove(c)
	}
	return c
}
