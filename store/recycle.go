package store

// freeList keeps records, and the buffers in them, for their next use.
type freeList[T any] struct{ free []*T }

// What is kept for reuse is bounded, so that a burst is forgotten: records by
// number, buffers by size (labels and properties of smtp(8) have some hundred
// bytes at most).
const (
	maxFreeRecords = 4096
	maxFreeBuffer  = 1024
)

func (l *freeList[T]) take() *T {
	if len(l.free) == 0 {
		return new(T)
	}
	last := len(l.free) - 1
	record := l.free[last]
	l.free[last] = nil
	l.free = l.free[:last]
	return record
}

func (l *freeList[T]) give(record *T) {
	if len(l.free) < maxFreeRecords {
		l.free = append(l.free, record)
	}
}

// trim returns a buffer for its next use, or nil if it is too large to keep.
func trim(buffer []byte) []byte {
	if cap(buffer) > maxFreeBuffer {
		return nil
	}
	return buffer[:0]
}
