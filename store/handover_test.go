package store

import (
	"fmt"
	"testing"
)

// Bindings that were saved in the places of others come the last one first, and are restored in the order in
// which they were saved.
func TestRestoreBackwards(t *testing.T) {
	const n = 1000
	s := New(nil)
	restoring := s.Restore()
	for i := n; i > 0; i-- {
		restoring.Binding(Binding{Destination: []byte("d"), Endpoint: fmt.Append(nil, i), Serial: uint64(i), Deadline: 1000})
	}
	place := 0
	for b := s.lookupDestination([]byte("d")).first; b != nil; b = b.next {
		if place++; b.serial != uint64(place) {
			t.Fatalf("in place %d is what was saved as number %d", place, b.serial)
		}
	}
	if place != n {
		t.Errorf("%d are there, want %d", place, n)
	}
}
