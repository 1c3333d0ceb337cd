package store

import "iter"

// index finds entries by the hash of their key. It is a hash table with open addressing
// and linear probing: who looks up goes through neighbouring slots, in which the hashes
// stand, and touches no entry but the one it wants. With a million entries nearly every
// cache line touched is one from memory; a map touches twice as many. A map from
// strings would also allocate one for each name that comes and goes.
//
// It grows in parts, so that no save has to wait until a million slots have moved. It
// does not shrink.
type index[T any] struct{ parts [1 << partBits]part[T] }

type part[T any] struct {
	slots []slot[T] // a power of two; at least a quarter is free
	used  int
}

type slot[T any] struct {
	hash  uint64 // 0: free
	entry T
}

const (
	partBits   = 8
	leastSlots = 8
)

func (ix *index[T]) part(hash uint64) *part[T] { return &ix.parts[hash>>(64-partBits)] }

// find returns the entry with this hash that is the wanted one, or nil. It is a view that ends
// with the next add or remove.
func (ix *index[T]) find(hash uint64, wanted func(*T) bool) *T {
	p := ix.part(hash)
	if p.used == 0 {
		return nil
	}
	for at := p.home(hash); ; at = p.after(at) {
		switch s := &p.slots[at]; {
		case s.hash == 0:
			return nil
		case s.hash == hash && wanted(&s.entry):
			return &s.entry
		}
	}
}

// add adds an entry, which must not be there, and returns it as find does. The hash must not be 0.
func (ix *index[T]) add(hash uint64, entry T) *T {
	p := ix.part(hash)
	if p.used >= len(p.slots)/4*3 {
		p.grow()
	}
	p.used++
	return p.put(slot[T]{hash, entry})
}

// remove removes the entry with this hash that is the wanted one, and must be there.
func (ix *index[T]) remove(hash uint64, wanted func(*T) bool) {
	p := ix.part(hash)
	free := p.home(hash)
	for p.slots[free].hash != hash || !wanted(&p.slots[free].entry) {
		free = p.after(free)
	}
	// What stands behind moves up, but not in front of its home.
	for at := p.after(free); p.slots[at].hash != 0; at = p.after(at) {
		if p.distance(p.home(p.slots[at].hash), at) >= p.distance(free, at) {
			p.slots[free] = p.slots[at]
			free = at
		}
	}
	p.slots[free] = slot[T]{}
	p.used--
}

// all goes through all entries. The index must not change meanwhile.
func (ix *index[T]) all() iter.Seq[T] {
	return func(yield func(T) bool) {
		for i := range ix.parts {
			for _, s := range ix.parts[i].slots {
				if s.hash != 0 && !yield(s.entry) {
					return
				}
			}
		}
	}
}

// home is where a hash stands if that slot is free; else behind it.
func (p *part[T]) home(hash uint64) int { return int(hash) & (len(p.slots) - 1) }

func (p *part[T]) after(at int) int { return (at + 1) & (len(p.slots) - 1) }

// distance is how many slots to stands behind from.
func (p *part[T]) distance(from, to int) int { return (to - from) & (len(p.slots) - 1) }

func (p *part[T]) put(s slot[T]) *T {
	at := p.home(s.hash)
	for p.slots[at].hash != 0 {
		at = p.after(at)
	}
	p.slots[at] = s
	return &p.slots[at].entry
}

func (p *part[T]) grow() {
	old := p.slots
	p.slots = make([]slot[T], max(2*len(old), leastSlots))
	for _, s := range old {
		if s.hash != 0 {
			p.put(s)
		}
	}
}
