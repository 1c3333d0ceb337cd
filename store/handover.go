package store

import "iter"

// What a server needs to hand its cache over to the process that takes its place: all that is
// stored, and the way back in.

// Binding is what SaveDestination has saved. The texts are views, until the next call that could
// drop it.
type Binding struct {
	Destination, Property, Endpoint []byte
	Deadline                        Tick
	Serial                          uint64 // no other saving has it; a refresh does not change it

	of *binding
}

// Saved returns when the binding was saved first.
func (b Binding) Saved() Tick { return stamped(b.Serial) }

// Oldest returns the connection saved first at the binding's endpoint, nil if it has none.
func (b Binding) Oldest() *Connection { return b.of.endpoint.oldest }

func (s *Store) view(b *binding) Binding {
	return Binding{b.destination.label, b.property, b.endpoint.label, s.deadline(b), b.serial, b}
}

// Bindings returns all bindings, those of one destination in the order of first saving. The
// store must not be changed meanwhile.
func (s *Store) Bindings() iter.Seq[Binding] {
	return func(yield func(Binding) bool) {
		for d := range s.destinations.all() {
			for b := d.first; b != nil; b = b.next {
				if !yield(s.view(b)) {
					return
				}
			}
		}
	}
}

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

// RestoreBinding saves a binding as it was in another store, whose clock is this one's: at its
// place by its serial number. It is not counted by Bound. Limits do not hold for what is restored, see Lower.
func (s *Store) RestoreBinding(b Binding) {
	key := s.bindingKey(b.Destination, b.Property, b.Endpoint)
	at := s.lookupBinding(key)
	if at == nil {
		at = s.bind(key, b.Destination, b.Property, b.Endpoint)
		s.bound--
		of := at.binding
		of.serial = b.Serial
		unlink(of)
		previous := of.destination.last
		for previous != nil && previous.serial > b.Serial {
			previous = previous.previous
		}
		link(of, previous)
	}
	s.expire(at, b.Deadline)
}

// Restore puts a connection into the store as RestoreBinding does. The store owns fd from now on.
func (s *Store) Restore(endpoint, property []byte, fd int, serial uint64, deadline Tick) *Connection {
	c := s.prepare(endpoint, property)
	c.fd, c.serial = int32(fd), serial
	s.insert(c, deadline)
	return c
}

// Withdraw takes a connection out of the store, as a find does.
func (s *Store) Withdraw(c *Connection) { s.remove(c) }
