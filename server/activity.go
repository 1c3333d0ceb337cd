package server

import (
	"hash/maphash"

	"github.com/scache/scache/timerwheel"
)

// activity remembers how often destinations were found of late, and how often not, for those
// that are looked up most, in bounded memory: a look-up counts in one of the four entries that
// its label may have. A newcomer there takes away from the least active one, and has its
// place when nothing is left of that: so those that come once leave no trace, and
// the busy ones stay.
//
// What is counted halves with every period.
type activity struct {
	seed    maphash.Seed
	entries [activeSets][activeWays]active
	labels  [activeSets][activeWays][]byte // buffers that are used again
}

// active is an entry. The zero one is free.
type active struct {
	hash         uint64
	hits, misses uint32 // times activeUnit
	period       uint32 // that they are true for
}

const (
	activeSets, activeWays = 64, 4
	maxActiveLabel         = 255
	activeUnit             = 1 << 4
	activePeriod           = 60 * ticksPerSecond
)

func newActivity() *activity { return &activity{seed: maphash.MakeSeed()} }

// count counts a look-up.
func (a *activity) count(label []byte, now timerwheel.Tick, hit bool) {
	hash, period := maphash.Bytes(a.seed, label), uint32(now/activePeriod)
	set := &a.entries[hash%activeSets]
	least := 0
	for i := range set {
		e := &set[i]
		if e.hash == hash {
			e.age(period)
			e.count(hit)
			return
		}
		if e.age(period); e.weight() < set[least].weight() {
			least = i
		}
	}
	e := &set[least]
	if e.weaken(); e.weight() > 0 {
		return
	}
	*e = active{hash: hash, period: period}
	e.count(hit)
	buffer := &a.labels[hash%activeSets][least]
	*buffer = append((*buffer)[:0], label[:min(len(label), maxActiveLabel)]...)
}

func (e *active) weight() uint32 { return e.hits + e.misses }

// maxActive keeps a weight in its 32 bits.
const maxActive = 1 << 30

func (e *active) count(hit bool) {
	switch {
	case hit && e.hits < maxActive:
		e.hits += activeUnit
	case !hit && e.misses < maxActive:
		e.misses += activeUnit
	}
}

// age halves what was counted, for each period that is over.
func (e *active) age(period uint32) {
	if e.period != period {
		e.hits >>= min(period-e.period, 31)
		e.misses >>= min(period-e.period, 31)
		e.period = period
	}
}

// weaken takes one look-up away.
func (e *active) weaken() {
	if take := min(e.misses, activeUnit); take > 0 {
		e.misses -= take
	} else {
		e.hits -= min(e.hits, activeUnit)
	}
}

// lookedUp is what is told of a destination.
type lookedUp struct {
	told         bool   // else the place is free
	label        []byte // a view
	hits, misses float64
}

// next returns what is at a place, and moves on to the next.
func (a *activity) next(place *int, now timerwheel.Tick) (d lookedUp, more bool) {
	set, way := *place/activeWays, *place%activeWays
	if set == activeSets {
		return d, false
	}
	*place++
	e := a.entries[set][way]
	if e.age(uint32(now / activePeriod)); e.weight() > 0 {
		d.label, d.told = a.labels[set][way], true
		d.hits, d.misses = float64(e.hits)/activeUnit, float64(e.misses)/activeUnit
	}
	return d, true
}
