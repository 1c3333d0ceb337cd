// Package store is the connection cache itself, organised as the manual page
// scache(8) has it: logical destinations refer to physical endpoints, and an
// endpoint has connections. All of it lives for a limited time.
//
//	destination --- binding --- endpoint --- connection
//	"example.com"   property    "192.0.2.1"  descriptor, property
//
// A destination has bindings in the order in which they were first saved, each to
// one endpoint. An endpoint has connections, the oldest first; it may be bound to
// any number of destinations, or none, and may lack a connection. Labels and
// properties are the clients' business, and compare byte for byte; whole bindings compare by
// 128 bits of hash. Destinations and endpoints have separate name spaces.
//
// # Descriptors
//
// The package makes no system call and reads no clock. A descriptor is a number
// that the store owns from [Store.Save] on until it leaves, exactly once, in one
// of two ways: with a [Connection] that a find returns, or in a call of the close
// function that the store was made with. What a find returned may be given back
// once, see [Store.PutBack].
//
// # Cost
//
// Every operation takes the same time however much is stored, but for a find
// that passes over bindings whose endpoints have no connection, and for putting back, which
// passes over others that were put back before and, under [NewestFirst], over those that were
// saved since. Records are recycled: in the steady state
// nothing is allocated.
//
// # Bounds
//
// [Limits] bound what is stored. A save for which there is no room makes room: what
// would expire first is dropped.
//
// The model is Postfix's global/scache_multi.c.
package store

import (
	"hash/maphash"
	"slices"

	"github.com/scache/scache/internal/table"
	"github.com/scache/scache/timerwheel"
)

// Tick is the caller's measure of time, see package timerwheel.
type Tick = timerwheel.Tick

// Reason tells why the store closes a connection.
type Reason int

const (
	Expired     Reason = iota // its time to live is over
	Evicted                   // there was no room
	HungUp                    // the far end has closed it
	Unsolicited               // the far end spoke unasked
	Shutdown                  // Clear was called
	Flushed                   // the caller wanted it out
	ClientGone                // put back when its time to live was over
	Declined                  // Decline was called
	Reasons                   // how many there are
)

func (r Reason) String() string {
	return [...]string{"expired", "evicted", "hung-up", "unsolicited", "shutdown", "flushed", "client-gone", "declined"}[r]
}

// Limits bound what is stored. Zero is no bound.
type Limits struct {
	Connections    int // in all
	PerEndpoint    int // connections of one endpoint
	Bindings       int // in all
	PerDestination int // bindings of one destination
	Text           int // bytes of labels and properties in all
}

// Order tells which connection of an endpoint is found.
type Order int

const (
	OldestFirst Order = iota // first in, first out
	NewestFirst              // last in, first out: what is not needed ages and expires
)

// Terms are what holds for one endpoint in the place of what holds for all.
type Terms struct {
	PerEndpoint int // 0: as Limits say; negative: no bound
	Order       Order
}

// Store is a connection cache. It must be used by one goroutine only.
type Store struct {
	Limits Limits // holds for saves from now on
	Order  Order

	close func(fd int, why Reason)
	seed  maphash.Seed
	size  Size
	last  uint64 // what was stamped last

	bound     int      // bindings made
	displaced int      // bindings dropped to make room
	effort    int      // see Effort
	journal   *Journal // or nil

	connections table.Table[*Connection] // those in the store, by descriptor
	places      places                   // of the bindings

	destinations index[*destination]
	bindings     index[slotted]
	endpoints    index[*endpoint]
	secondSeed   maphash.Seed // see key
	texts        []byte       // see bindingKey

	// One wheel for each kind that expires.
	bindingTimers    timerwheel.Wheel[*binding]
	connectionTimers timerwheel.Wheel[*Connection]

	freeDestinations freeList[destination]
	freeBindings     freeList[binding]
	freeEndpoints    freeList[endpoint]
	freeConnections  freeList[Connection]
}

// Size counts what is stored.
type Size struct {
	Destinations int // that have a binding
	Bindings     int
	Endpoints    int // that have a connection
	Connections  int
	Text         int // bytes of labels and properties, also of connections that are outside
}

// New returns an empty store, at tick 0. close is called with each descriptor
// that leaves the store otherwise than by a find, and owns it from then on. It
// must not call the store.
func New(close func(fd int, why Reason)) *Store {
	return &Store{close: close, seed: maphash.MakeSeed(), secondSeed: maphash.MakeSeed()}
}

// Size returns what is stored at present.
func (s *Store) Size() Size { return s.size }

// Advance moves the store's time to now and drops what is due. Whatever is saved
// with a deadline d is there before d, and gone once Advance(d) was called.
func (s *Store) Advance(now Tick) {
	s.connectionTimers.Advance(now)
	for c, ok := s.connectionTimers.Expired(); ok; c, ok = s.connectionTimers.Expired() {
		s.Remove(c, Expired)
	}
	s.bindingTimers.Advance(now)
	for b, ok := s.bindingTimers.Expired(); ok; b, ok = s.bindingTimers.Expired() {
		if deadline := s.deadline(b); deadline > now {
			s.bindingTimers.Set(&b.timer, b, deadline)
		} else {
			s.dropBinding(b)
		}
	}
}

// Next returns the earliest time at which Advance has something to do, and false
// if it never will.
func (s *Store) Next() (Tick, bool) {
	connection, ok := s.connectionTimers.Next()
	binding, bound := s.bindingTimers.Next()
	switch {
	case !bound:
		return connection, ok
	case !ok:
		return binding, bound
	}
	return min(connection, binding), true
}

// Clear drops everything, and gives Shutdown as the reason.
func (s *Store) Clear() {
	for _, at := range slices.Collect(s.bindings.all()) {
		s.dropBinding(at.binding)
	}
	for _, e := range slices.Collect(s.endpoints.all()) {
		for e.oldest != nil {
			s.Remove(e.oldest, Shutdown)
		}
	}
}

// dropsForText bounds what is dropped for one save's texts, which may be as long as many thousands
// of what is stored: a save that needs more is refused, and the next one finds what was dropped.
const dropsForText = 1024

// What other work costs, in bindings passed over; see Effort.
const (
	dropEffort  = 16
	resetEffort = 4
)

// Effort returns the work done since the last call beyond what each operation always costs: 1 for each
// binding or connection passed over, dropEffort for each one dropped.
func (s *Store) Effort() (n int) {
	n, s.effort = s.effort, 0
	return n
}

// makeRoom makes room for so many bytes of text, and reports whether there is.
func (s *Store) makeRoom(text int) bool {
	if s.Limits.Text > 0 && text > s.Limits.Text {
		return false // whatever is dropped
	}
	for most := s.effort + dropsForText*dropEffort; s.Limits.Text > 0 && s.size.Text+text > s.Limits.Text; {
		if s.effort >= most || !s.dropSoonest() {
			return false
		}
	}
	return true
}

// dropSoonest drops what expires first, connection or binding, if there is anything.
func (s *Store) dropSoonest() bool {
	c, connection := s.connectionTimers.Soonest()
	b, binding := s.soonestBinding()
	switch {
	case connection && (!binding || c.timer.When() <= s.deadline(b)):
		s.evict(c)
	case binding:
		s.displace(b)
	default:
		return false
	}
	return true
}

// stampBits are the bits of a stamp that count what is saved in one tick.
const stampBits = 16

// stamp returns a number for something that is saved: greater than all before it, and
// its upper bits are the time.
func (s *Store) stamp() uint64 {
	s.last = max(s.last+1, uint64(s.connectionTimers.Now())<<stampBits)
	return s.last
}

// stamped returns the time of a stamp.
func stamped(stamp uint64) Tick { return Tick(stamp >> stampBits) }

// hash is never 0, see index.
func (s *Store) hash(text []byte) uint64 { return max(maphash.Bytes(s.seed, text), 1) }

// remember copies a label or property into buffer, which is used again, unless that is much larger than
// the text: spare capacity is not counted in Size.Text.
func remember(buffer, text []byte) []byte {
	if cap(buffer) > 2*len(text)+64 {
		buffer = nil
	}
	return append(buffer[:0], text...)
}
