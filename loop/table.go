package loop

// Table is indexed by descriptor. It grows by chunks, as descriptors are numbered
// from below: nothing is copied, and nothing moves. The zero Table is empty.
type Table[T any] struct{ chunks []*[chunkSize]T }

const chunkSize = 256

// At returns the entry of fd, which is zero at first.
func (t *Table[T]) At(fd int) *T {
	for fd/chunkSize >= len(t.chunks) {
		t.chunks = append(t.chunks, new([chunkSize]T))
	}
	return &t.chunks[fd/chunkSize][fd%chunkSize]
}
