package store

import (
	"bytes"
	"hash/maphash"

	"github.com/scache/scache/timerwheel"
)

// A binding says that a destination can be reached at an endpoint. It is what it
// is by its destination, property and endpoint.
type binding struct {
	destination *destination
	endpoint    *endpoint
	// The destination's label, the property and the endpoint's label, one behind
	// the other: what a refresh compares with, in one place in memory.
	text              []byte
	property, through int32 // where the property begins and ends in text

	previous, next *binding // of the same destination, in the order of first saving
	deadline       Tick
	serial         uint64                     // see stamp
	place          int32                      // in places
	timer          timerwheel.Timer[*binding] // set for deadline, or for an earlier one
	indexed        node[*binding]
}

// SaveDestination binds a destination to an endpoint until deadline. All texts are
// copied. A binding that exists keeps its place and gets the new deadline, be it
// later or earlier. It returns false if there is no room.
func (s *Store) SaveDestination(destination, property, endpoint []byte, deadline Tick) bool {
	hash := s.bindingHash(destination, property, endpoint)
	b := s.lookupBinding(hash, destination, property, endpoint)
	if b == nil {
		if !s.makeRoomForBinding(destination, property, endpoint) {
			return false
		}
		b = s.bind(hash, destination, property, endpoint)
	}
	// A refresh leaves the timer alone, and with it its neighbours in the wheel:
	// that is left to the one time when it is due.
	b.deadline = deadline
	if !b.timer.Pending() || deadline < b.timer.When() {
		s.bindingTimers.Set(&b.timer, b, deadline)
	}
	return true
}

// Bound returns how many bindings were made, refreshed ones not counted again.
func (s *Store) Bound() int { return s.bound }

// Displaced returns how many bindings were dropped to make room.
func (s *Store) Displaced() int { return s.displaced }

func (s *Store) makeRoomForBinding(destination, property, endpoint []byte) bool {
	d := s.lookupDestination(destination)
	for limit, n := s.Limits.PerDestination, 0; d != nil && limit > 0 && d.bindings >= limit && n < dropsPerSave; n++ {
		s.displace(d.first)
	}
	for limit := s.Limits.Bindings; limit > 0 && s.size.Bindings >= limit; {
		b, _ := s.soonestBinding()
		s.displace(b)
	}
	// A name is stored with its binding and, if it is new, by itself.
	return s.makeRoom(2*len(destination) + len(property) + 2*len(endpoint))
}

// soonestBinding returns the binding that expires first, or one of the earliest if
// many were refreshed since their timers were set.
func (s *Store) soonestBinding() (b *binding, ok bool) {
	const tries = 64 // so many timers may have to be put right
	for range tries {
		b, ok = s.bindingTimers.Soonest()
		if !ok || b.timer.When() == b.deadline {
			break
		}
		s.bindingTimers.Set(&b.timer, b, b.deadline)
	}
	return b, ok
}

func (s *Store) displace(b *binding) {
	s.displaced++
	s.dropBinding(b)
}

// bind makes a binding, the last of its destination, and the destination if need
// be.
func (s *Store) bind(hash uint64, destination, property, endpoint []byte) *binding {
	b := s.freeBindings.take()
	b.text = append(append(append(b.text[:0], destination...), property...), endpoint...)
	b.property, b.through = int32(len(destination)), int32(len(destination)+len(property))
	b.serial, b.place = s.stamp(), s.places.take()
	*s.places.At(int(b.place)) = b
	s.bound++
	b.endpoint = s.refer(endpoint)
	s.bindings.add(&b.indexed, b, hash)
	s.size.Bindings++
	s.size.Text += len(b.text)

	d := s.lookupDestination(destination)
	if d == nil {
		d = s.freeDestinations.take()
		d.label = remember(d.label, destination)
		s.destinations.add(&d.indexed, d, s.hash(destination))
		s.size.Destinations++
		s.size.Text += len(destination)
	}
	d.bindings++
	b.destination = d
	b.previous = d.last
	if d.last != nil {
		d.last.next = b
	} else {
		d.first = b
	}
	d.last = b
	return b
}

// dropBinding is the reverse of bind.
func (s *Store) dropBinding(b *binding) {
	s.bindingTimers.Stop(&b.timer)
	d := b.destination
	if b.previous != nil {
		b.previous.next = b.next
	} else {
		d.first = b.next
	}
	if b.next != nil {
		b.next.previous = b.previous
	} else {
		d.last = b.previous
	}
	b.previous, b.next, b.destination = nil, nil, nil
	d.bindings--
	if d.first == nil {
		s.destinations.remove(&d.indexed)
		s.size.Destinations--
		s.size.Text -= len(d.label)
		d.label = trim(d.label)
		s.freeDestinations.give(d)
	}

	s.places.give(b.place)
	s.bindings.remove(&b.indexed)
	s.size.Bindings--
	s.size.Text -= len(b.text)
	s.release(b.endpoint)
	b.endpoint = nil
	b.text = trim(b.text)
	s.freeBindings.give(b)
}

func (s *Store) lookupBinding(hash uint64, destination, property, endpoint []byte) *binding {
	for n := s.bindings[hash]; n != nil; n = n.next {
		b := n.item
		if bytes.Equal(b.text[:b.property], destination) && bytes.Equal(b.text[b.property:b.through], property) && bytes.Equal(b.text[b.through:], endpoint) {
			return b
		}
	}
	return nil
}

func (s *Store) bindingHash(destination, property, endpoint []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, text := range [...][]byte{destination, property, endpoint} {
		h.Write(text)
		h.WriteByte(0) // no text contains one
	}
	return h.Sum64()
}
