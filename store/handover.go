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

func (b *binding) view() Binding {
	destination, property, endpoint := b.key.parts()
	return Binding{destination, property, endpoint, b.deadline, b.serial, b}
}

// Bindings returns all bindings, those of one destination in the order of first saving. The
// store must not be changed meanwhile.
func (s *Store) Bindings() iter.Seq[Binding] {
	return func(yield func(Binding) bool) {
		for d := range s.destinations.all() {
			for b := d.first; b != nil; b = b.next {
				if !yield(b.view()) {
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

// RestoreBinding saves a binding as it was in another store. There may be no room for it.
func (s *Store) RestoreBinding(b Binding) {
	if s.SaveDestination(b.Destination, b.Property, b.Endpoint, b.Deadline) && b.Serial > 0 {
		key := s.bindingKey(b.Destination, b.Property, b.Endpoint)
		s.lookupBinding(s.hash(key), key).serial = b.Serial
	}
}

// Restore puts a connection into the store as it was in another one, whose clock is this one's:
// at its place by its serial number, until its deadline. The store owns fd from now on. It returns
// nil, and owns nothing, if there is no room for the texts.
func (s *Store) Restore(endpoint, property []byte, fd int, serial uint64, deadline Tick) *Connection {
	c := s.Prepare(endpoint, property)
	if c == nil {
		return nil
	}
	c.fd, c.serial = int32(fd), serial
	s.insert(c, deadline)
	return c
}

// Withdraw takes a connection out of the store, as a find does.
func (s *Store) Withdraw(c *Connection) { s.remove(c) }
