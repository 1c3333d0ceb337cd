package store

import (
	"iter"
	"maps"
	"slices"
)

// Journal notes what changes in a store from a moment on, by serial numbers. What comes and leaves
// again is forgotten.
type Journal struct {
	store       *Store
	begin       uint64                 // what came later has a greater serial number
	bindings    map[uint64]*binding    // nil: it has left
	connections map[uint64]*Connection // the same
}

// BeginJournal begins the only journal of the store, which lasts until EndJournal.
func (s *Store) BeginJournal() *Journal {
	s.journal = &Journal{s, s.last, make(map[uint64]*binding), make(map[uint64]*Connection)}
	return s.journal
}

// EndJournal ends it.
func (s *Store) EndJournal() { s.journal = nil }

// Bindings returns those that have come, have got another deadline, or have left: these are zero. They
// are in the order of their serial numbers.
func (j *Journal) Bindings() iter.Seq2[uint64, Binding] {
	return func(yield func(uint64, Binding) bool) {
		for _, serial := range slices.Sorted(maps.Keys(j.bindings)) {
			var view Binding
			if b := j.bindings[serial]; b != nil {
				view = j.store.view(b)
			}
			if !yield(serial, view) {
				return
			}
		}
	}
}

// Connections returns those that have come, or have left: these are nil.
func (j *Journal) Connections() iter.Seq2[uint64, *Connection] {
	return func(yield func(uint64, *Connection) bool) {
		for _, serial := range slices.Sorted(maps.Keys(j.connections)) {
			if !yield(serial, j.connections[serial]) {
				return
			}
		}
	}
}

// noteBinding notes a binding that has changed; nil is for one that leaves.
func (s *Store) noteBinding(serial uint64, b *binding) {
	if s.journal != nil {
		note(s.journal, s.journal.bindings, serial, b)
	}
}

// noteConnection notes a connection that has come; nil is for one that leaves.
func (s *Store) noteConnection(serial uint64, c *Connection) {
	if s.journal != nil {
		note(s.journal, s.journal.connections, serial, c)
	}
}

func note[T any](j *Journal, changes map[uint64]*T, serial uint64, item *T) {
	if item == nil && serial > j.begin {
		delete(changes, serial)
	} else {
		changes[serial] = item
	}
}
