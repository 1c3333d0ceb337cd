package store

import (
	"fmt"
	"maps"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// present returns the serial numbers of all that is stored.
func (s *Store) present() map[uint64]bool {
	all := map[uint64]bool{}
	for c := range s.Connections() {
		all[c.serial] = true
	}
	for at := range s.bindings.all() {
		all[at.binding.serial] = true
	}
	return all
}

// walker takes two walks, and knows what they must visit.
type walker struct {
	store                 *Store
	connections, bindings Walk
	always                map[uint64]bool // what was there when they began, and all the time since
	visited               map[uint64]bool
	done                  [2]bool
}

func (w *walker) begin(*rapid.T) {
	w.connections, w.bindings = w.store.Walk(), w.store.Walk()
	w.always, w.visited, w.done = w.store.present(), map[uint64]bool{}, [2]bool{}
}

// visit takes a step with either walk.
func (w *walker) visit(t *rapid.T) {
	if c, more := w.store.NextConnection(&w.connections); c != nil {
		w.saw(t, c.serial)
	} else {
		w.done[0] = w.done[0] || !more
	}
	if b, any, more := w.store.NextBinding(&w.bindings); any {
		w.saw(t, b.Serial)
	} else {
		w.done[1] = w.done[1] || !more
	}
}

func (w *walker) saw(t *rapid.T, serial uint64) {
	if w.visited[serial] || w.connections.Precedes(serial) {
		t.Fatalf("%d is visited; before: %v, saved later: %v", serial, w.visited[serial], w.connections.Precedes(serial))
	}
	w.visited[serial] = true
}

func (w *walker) check(t *rapid.T) {
	present := w.store.present()
	maps.DeleteFunc(w.always, func(serial uint64, _ bool) bool { return !present[serial] })
	if w.done != [2]bool{true, true} {
		return
	}
	for serial := range w.always {
		if !w.visited[serial] {
			t.Fatalf("%d was there all the time and has not been visited", serial)
		}
	}
}

// Whatever happens between the steps of a walk.
func TestWalkVisitsOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		w := &walker{store: m.store}
		w.begin(t)
		actions := m.actions()
		// More often than the others, so that walks come to their end.
		actions["visit"], actions["visit again"], actions["visit once more"] = w.visit, w.visit, w.visit
		actions["begin"] = w.begin
		actions[""] = func(t *rapid.T) { m.check(t); w.check(t) }
		t.Repeat(actions)
		for w.done != [2]bool{true, true} {
			w.visit(t)
		}
		w.check(t)
	})
}

// A look is short, however many places are empty, and a walk ends.
func TestWalkLooksAtFewPlaces(t *testing.T) {
	s := New(func(int, Reason) {})
	const last = 100_000
	for _, fd := range []int{7, last} {
		s.Save(s.Prepare([]byte("e"), nil), fd, 1000)
	}
	walk, looks, seen := s.Walk(), 0, 0
	for more := true; more; looks++ {
		var c *Connection
		if c, more = s.NextConnection(&walk); c != nil {
			seen++
		}
	}
	if seen != 2 || looks < last/placesPerLook {
		t.Errorf("%d connections in %d looks", seen, looks)
	}
}

func TestAgeAndReturns(t *testing.T) {
	s := New(func(int, Reason) {})
	s.Advance(5000)
	s.Save(s.Prepare([]byte("e"), []byte("p")), 7, 9000)
	s.SaveDestination([]byte("d"), []byte("p"), []byte("e"), 8000)
	s.Advance(6000)
	s.PutBack(s.FindEndpoint([]byte("e")))
	s.SaveDestination([]byte("d"), []byte("p"), []byte("e"), 8500)
	c, walk := s.Oldest([]byte("e")), s.Walk()
	b, _, _ := s.NextBinding(&walk)
	got := fmt.Sprintf("%d %s %d %d %d; %s %s %s %d %d; %d", c.FD(), c.Endpoint(), c.Saved(), c.Deadline(), c.Returned(),
		b.Destination, b.Property, b.Endpoint, b.Saved(), b.Deadline, s.Bound())
	if want := "7 e 5000 9000 1; d p e 5000 8500; 1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Memory is handed out by sizes, of which these are some: one byte more costs 16, or 32.
func TestRecordsAreSmall(t *testing.T) {
	if size := unsafe.Sizeof(Connection{}); size > 96 {
		t.Errorf("a connection has %d bytes", size)
	}
	if size := unsafe.Sizeof(binding{}); size > 256 { // with its texts
		t.Errorf("a binding has %d bytes", size)
	}
}
