package store

import (
	"hash/maphash"
	"math"

	"github.com/scache/scache/internal/table"
	"github.com/scache/scache/timerwheel"
)

// A binding says that a destination can be reached at an endpoint. It is what it
// is by its destination, property and endpoint.
type binding struct {
	key            key
	timer          timerwheel.Timer[*binding] // set for the deadline, or for an earlier time
	property       []byte
	destination    *destination
	endpoint       *endpoint
	previous, next *binding // of the same destination, in the order of first saving
	serial         uint64   // see stamp
	place          int32    // in places
}

// key is what a binding is found by: two hashes of its texts, with random seeds. They stand
// for the texts, to compare which would cost each refresh a wait for memory. That two of a million
// bindings had the same is as likely as 1 to 10^27; then the second one would not be found.
type key struct{ first, second uint64 }

// slotted is a binding's entry in the index. It has all that a refresh touches.
type slotted struct {
	second   uint64 // of the key
	deadline Tick
	binding  *binding
}

// SaveDestination binds a destination to an endpoint until deadline. All texts are
// copied. A binding that exists keeps its place and gets the new deadline, be it
// later or earlier. It returns false if there is no room.
func (s *Store) SaveDestination(destination, property, endpoint []byte, deadline Tick) bool {
	key := s.bindingKey(destination, property, endpoint)
	at := s.lookupBinding(key)
	if at == nil {
		if !s.makeRoomForBinding(destination, property, endpoint) {
			return false
		}
		at = s.bind(key, destination, property, endpoint)
	}
	s.expire(at, deadline)
	return true
}

// expire gives a binding a deadline. A refresh leaves the timer alone, and with it its
// neighbours in the wheel: that is left to the one time when it is due.
func (s *Store) expire(at *slotted, deadline Tick) {
	if deadline < at.deadline {
		s.bindingTimers.Set(&at.binding.timer, at.binding, deadline)
	}
	at.deadline = deadline
	if s.journal != nil { // else the binding itself is not looked at
		s.noteBinding(at.binding.serial, at.binding)
	}
}

func (s *Store) bindingKey(destination, property, endpoint []byte) key {
	const largestSpare = 1 << 16
	if cap(s.texts) > largestSpare {
		s.texts = nil
	}
	// No text contains a NUL byte.
	s.texts = append(append(append(append(append(s.texts[:0], destination...), 0), property...), 0), endpoint...)
	return key{s.hash(s.texts), maphash.Bytes(s.secondSeed, s.texts)}
}

// lookupBinding returns a view that ends when a binding comes or goes.
func (s *Store) lookupBinding(k key) *slotted {
	return s.bindings.find(k.first, func(at *slotted) bool { return at.second == k.second })
}

// deadline returns when a binding expires.
func (s *Store) deadline(b *binding) Tick { return s.lookupBinding(b.key).deadline }

// Bound returns how many bindings were made, refreshed ones not counted again.
func (s *Store) Bound() int { return s.bound }

// Displaced returns how many bindings were dropped to make room.
func (s *Store) Displaced() int { return s.displaced }

func (s *Store) makeRoomForBinding(destination, property, endpoint []byte) bool {
	if !s.makeRoom(len(destination) + len(property) + len(endpoint)) {
		return false
	}
	d := s.lookupDestination(destination)
	for limit, n := s.Limits.PerDestination, 0; d != nil && limit > 0 && d.bindings >= limit && n < dropsPerSave; n++ {
		s.displace(d.first)
	}
	for limit := s.Limits.Bindings; limit > 0 && s.size.Bindings >= limit; {
		b, _ := s.soonestBinding()
		s.displace(b)
	}
	return true
}

// soonestBinding returns the binding that expires first; if more than 64 were refreshed since their
// timers were set, it is the first of those that were looked at.
func (s *Store) soonestBinding() (soonest *binding, ok bool) {
	const most = 64 // timers that are put right
	earliest := never
	for n := 0; ; n++ {
		b, any := s.bindingTimers.Soonest()
		if !any {
			return nil, false
		}
		deadline := s.deadline(b)
		if deadline < earliest {
			soonest, earliest = b, deadline
		}
		if b.timer.When() == deadline || n == most { // no other is due before, but for some of many
			return soonest, true
		}
		s.bindingTimers.Set(&b.timer, b, deadline)
		s.effort += resetEffort
	}
}

func (s *Store) displace(b *binding) {
	s.displaced++
	s.effort += dropEffort
	s.dropBinding(b)
}

// never is the deadline of a binding that has none yet.
const never Tick = math.MaxUint64

// bind makes a binding, the last of its destination, and the destination if need
// be.
func (s *Store) bind(k key, destination, property, endpoint []byte) *slotted {
	b := s.freeBindings.take()
	b.key, b.property = k, remember(b.property, property)
	b.serial, b.place = s.stamp(), s.places.take()
	*s.places.At(int(b.place)) = b
	s.bound++
	b.endpoint = s.refer(endpoint)
	s.size.Bindings++
	s.size.Text += len(property)

	d := s.lookupDestination(destination)
	if d == nil {
		d = s.freeDestinations.take()
		d.label = remember(d.label, destination)
		s.destinations.add(s.hash(destination), d)
		s.size.Destinations++
		s.size.Text += len(destination)
	}
	d.bindings++
	b.destination = d
	link(b, d.last)
	return s.bindings.add(k.first, slotted{k.second, never, b})
}

// link puts a binding behind another one of its destination; nil: in front of all.
func link(b, previous *binding) {
	d, next := b.destination, b.destination.first
	if previous != nil {
		next = previous.next
		previous.next = b
	} else {
		d.first = b
	}
	if next != nil {
		next.previous = b
	} else {
		d.last = b
	}
	b.previous, b.next = previous, next
}

// unlink is the reverse of link.
func unlink(b *binding) {
	if b.previous != nil {
		b.previous.next = b.next
	} else {
		b.destination.first = b.next
	}
	if b.next != nil {
		b.next.previous = b.previous
	} else {
		b.destination.last = b.previous
	}
	b.previous, b.next = nil, nil
}

// dropBinding is the reverse of bind.
func (s *Store) dropBinding(b *binding) {
	s.noteBinding(b.serial, nil)
	s.bindingTimers.Stop(&b.timer)
	d := b.destination
	unlink(b)
	b.destination = nil
	d.bindings--
	if d.first == nil {
		s.destinations.remove(s.hash(d.label), is(d))
		s.size.Destinations--
		s.size.Text -= len(d.label)
		d.label = trim(d.label)
		s.freeDestinations.give(d)
	}

	s.places.give(b.place)
	s.bindings.remove(b.key.first, func(at *slotted) bool { return at.binding == b })
	s.size.Bindings--
	s.size.Text -= len(b.property)
	s.release(b.endpoint)
	b.endpoint = nil
	b.property = trim(b.property)
	s.freeBindings.give(b)
}

// Binding is what SaveDestination has saved. The texts are views, until the next call that could
// drop it.
type Binding struct {
	Destination, Property, Endpoint []byte
	Deadline                        Tick
	Serial                          uint64 // no other saving has it; a refresh does not change it

	of *binding
}

// Gone reports whether there is no such binding.
func (b Binding) Gone() bool { return b.of == nil }

// Saved returns when the binding was saved first.
func (b Binding) Saved() Tick { return stamped(b.Serial) }

// Oldest returns the connection saved first at the binding's endpoint, nil if it has none.
func (b Binding) Oldest() *Connection { return b.of.endpoint.oldest }

func (s *Store) view(b *binding) Binding {
	return Binding{b.destination.label, b.property, b.endpoint.label, s.deadline(b), b.serial, b}
}

// FirstBinding returns the first binding of a destination.
func (s *Store) FirstBinding(destination []byte) (b Binding, ok bool) {
	if d := s.lookupDestination(destination); d != nil {
		return s.view(d.first), true
	}
	return b, false
}

// Reach returns how many bindings a destination has, and how many connections their endpoints
// have. It looks at the first bindings only, so many at most.
func (s *Store) Reach(destination []byte, look int) (bindings, connections int) {
	d := s.lookupDestination(destination)
	if d == nil {
		return 0, 0
	}
	for b, n := d.first, 0; b != nil && n < look; b, n = b.next, n+1 {
		connections += int(b.endpoint.connections)
	}
	return d.bindings, connections
}

// DropBinding takes a binding out of the store.
func (s *Store) DropBinding(b Binding) { s.dropBinding(b.of) }

// places are where the bindings are, as descriptors are where the connections are.
type places struct {
	table.Table[*binding]
	next int32
	free []int32
}

func (p *places) take() int32 {
	if last := len(p.free) - 1; last >= 0 {
		place := p.free[last]
		p.free = p.free[:last]
		return place
	}
	p.next++
	return p.next - 1
}

func (p *places) give(place int32) {
	*p.At(int(place)) = nil
	p.free = append(p.free, place)
}
