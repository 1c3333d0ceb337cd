// Package table is an array that grows: by chunks, so that nothing is copied, and nothing
// moves.
package table

// Table is indexed by small numbers, as descriptors are. The zero Table is empty.
type Table[T any] struct{ chunks []*[chunkSize]T }

const chunkSize = 256

// At returns the entry of a number, which is zero at first.
func (t *Table[T]) At(number int) *T {
	for number/chunkSize >= len(t.chunks) {
		t.chunks = append(t.chunks, new([chunkSize]T))
	}
	return &t.chunks[number/chunkSize][number%chunkSize]
}

// Len returns a number greater than any that At was called with.
func (t *Table[T]) Len() int { return len(t.chunks) * chunkSize }
