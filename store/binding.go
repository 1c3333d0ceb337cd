package store

import (
	"bytes"

	"github.com/scache/scache/timerwheel"
)

// A binding says that a destination can be reached at an endpoint. It is what it
// is by its destination, property and endpoint.
type binding struct {
	// What a refresh touches stands in front, and in one place in memory.
	deadline Tick
	timer    timerwheel.Timer[*binding] // set for deadline, or for an earlier one
	key      key

	destination    *destination
	endpoint       *endpoint
	previous, next *binding // of the same destination, in the order of first saving
	serial         uint64   // see stamp
	place          int32    // in places
}

// key is what a binding is found by: the destination's label, the property and the
// endpoint's label, with a NUL byte, which no text contains, between them. What is
// short, as that of smtp(8) is, stands in the binding itself: so it comes from memory
// together with the rest, not after it.
type key struct {
	length int32
	short  [140]byte
	long   []byte // if it is too long for short
}

func (k *key) set(text []byte) {
	k.length = int32(len(text))
	if copy(k.short[:], text) < len(text) {
		k.long = remember(k.long, text)
	}
}

func (k *key) text() []byte {
	if int(k.length) > len(k.short) {
		return k.long
	}
	return k.short[:k.length]
}

// size is what counts as text.
func (k *key) size() int { return int(k.length) - 2 }

func (k *key) parts() (destination, property, endpoint []byte) {
	destination, rest, _ := bytes.Cut(k.text(), separator)
	property, endpoint, _ = bytes.Cut(rest, separator)
	return destination, property, endpoint
}

var separator = []byte{0}

// SaveDestination binds a destination to an endpoint until deadline. All texts are
// copied. A binding that exists keeps its place and gets the new deadline, be it
// later or earlier. It returns false if there is no room.
func (s *Store) SaveDestination(destination, property, endpoint []byte, deadline Tick) bool {
	key := s.bindingKey(destination, property, endpoint)
	hash := s.hash(key)
	b := s.lookupBinding(hash, key)
	if b == nil {
		if !s.makeRoomForBinding(destination, property, endpoint) {
			return false
		}
		b = s.bind(hash, key, destination, endpoint)
	}
	s.expire(b, deadline)
	return true
}

// expire gives a binding a deadline. A refresh leaves the timer alone, and with it its
// neighbours in the wheel: that is left to the one time when it is due.
func (s *Store) expire(b *binding, deadline Tick) {
	b.deadline = deadline
	if !b.timer.Pending() || deadline < b.timer.When() {
		s.bindingTimers.Set(&b.timer, b, deadline)
	}
}

// bindingKey is the text of a key, until the next call.
func (s *Store) bindingKey(destination, property, endpoint []byte) []byte {
	const largestSpare = 1 << 16
	if cap(s.key) > largestSpare {
		s.key = nil
	}
	s.key = append(append(append(append(append(s.key[:0], destination...), 0), property...), 0), endpoint...)
	return s.key
}

func (s *Store) lookupBinding(hash uint64, key []byte) *binding {
	return s.bindings.find(hash, func(b *binding) bool { return bytes.Equal(b.key.text(), key) })
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
func (s *Store) bind(hash uint64, key, destination, endpoint []byte) *binding {
	b := s.freeBindings.take()
	b.key.set(key)
	b.serial, b.place = s.stamp(), s.places.take()
	*s.places.At(int(b.place)) = b
	s.bound++
	b.endpoint = s.refer(endpoint)
	s.bindings.add(hash, b)
	s.size.Bindings++
	s.size.Text += b.key.size()

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
	return b
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
	s.bindingTimers.Stop(&b.timer)
	d := b.destination
	unlink(b)
	b.destination = nil
	d.bindings--
	if d.first == nil {
		s.destinations.remove(s.hash(d.label), d)
		s.size.Destinations--
		s.size.Text -= len(d.label)
		d.label = trim(d.label)
		s.freeDestinations.give(d)
	}

	s.places.give(b.place)
	s.bindings.remove(s.hash(b.key.text()), b)
	s.size.Bindings--
	s.size.Text -= b.key.size()
	s.release(b.endpoint)
	b.endpoint = nil
	b.key.long = trim(b.key.long)
	s.freeBindings.give(b)
}
