// Package timerwheel is a hierarchical timing wheel: a set of timers in which
// setting, stopping and expiring one costs the same however many there are.
//
// It is pure. It reads no clock: time is a [Tick] that the caller passes in,
// and the meaning of a tick (scache uses a millisecond) is the caller's. It is
// pulled: no user code runs inside it, what is due is asked for. It is
// intrusive: a [Timer] is embedded in what it times, and nothing is allocated.
//
// # How it works
//
// A level has 64 slots; a slot of level 0 spans one tick, a slot of level n
// spans 64^n ticks. A timer stands on the level of the highest bit in which its
// time differs from the wheel's own, in the slot named by its time's six bits of
// that level. So everything on one level is due before anything on a higher one,
// and within a level slots are due in ascending order: the next deadline is found
// by one look at each level's bitmap. When the wheel's time enters a slot of a
// higher level, that slot's timers move down, at most once a level in their life.
// Eleven levels of six bits cover every uint64, so there is no overflow case.
// A slot's timers stand in the order in which they were set.
package timerwheel

import "math/bits"

// Tick is a point in time, counted by the caller from any origin it likes.
type Tick uint64

const (
	slotBits = 6
	slots    = 1 << slotBits
	levels   = (64 + slotBits - 1) / slotBits
)

// Timer is embedded in what it times. The zero Timer is stopped and ready for
// use; it must not be copied while it is set.
type Timer[T any] struct {
	owner T
	when  Tick
	next  *Timer[T]
	link  **Timer[T] // what points at this timer: a list's first or its neighbour's next; nil when stopped
}

// list is timers in the order in which they came. It must not be copied.
type list[T any] struct {
	first *Timer[T]
	end   **Timer[T] // where the next one is linked; of no meaning while the list is empty
}

// Pending reports whether the timer is set, or due and not yet taken by Expired.
func (t *Timer[T]) Pending() bool { return t.link != nil }

// When returns the time of the last Set.
func (t *Timer[T]) When() Tick { return t.when }

// Wheel is a set of timers. The zero Wheel is empty and stands at tick 0. It must not
// be copied.
type Wheel[T any] struct {
	now      Tick
	due      list[T]
	occupied [levels]uint64 // a bit for each slot that holds a timer
	slot     [levels][slots]list[T]
}

// Now returns the time of the last Advance.
func (w *Wheel[T]) Now() Tick { return w.now }

// Set makes t due at when, on behalf of owner; a timer already set is moved. A
// time that is not after Now makes it due at once.
func (w *Wheel[T]) Set(t *Timer[T], owner T, when Tick) {
	w.Stop(t)
	t.owner, t.when = owner, when
	w.place(t)
}

// Stop takes t out of the wheel; it does nothing to a timer that is not set.
func (w *Wheel[T]) Stop(t *Timer[T]) {
	if t.link == nil {
		return
	}
	if t.when <= w.now {
		w.due.remove(t)
		return
	}
	// The highest differing bit is the same as when t was placed: see Advance
	// for why time passing does not change it.
	level, slot := w.position(t.when)
	w.slot[level][slot].remove(t)
	if w.slot[level][slot].first == nil {
		w.occupied[level] &^= 1 << slot
	}
}

// Advance moves the wheel's time to now; time never goes back. What has become
// due is then returned by Expired.
func (w *Wheel[T]) Advance(now Tick) {
	for {
		level, start, ok := w.first()
		if !ok || start > now {
			break
		}
		// Enter the slot: with the wheel's time at its start, its timers
		// are due or belong on a lower level.
		slot := w.index(start, level)
		next := w.slot[level][slot].first
		w.slot[level][slot].first = nil
		w.occupied[level] &^= 1 << slot
		w.now = start
		for next != nil {
			t := next
			next = t.next
			w.place(t)
		}
	}
	// Every slot still occupied starts after now, and shares with the wheel's
	// old time, hence with now, which lies between, all bits above its own
	// level: no timer changes its level.
	w.now = max(w.now, now)
}

// Expired takes one due timer out of the wheel and returns its owner; ok is
// false when none is left. Timers of one tick come in no particular order.
func (w *Wheel[T]) Expired() (owner T, ok bool) {
	t := w.due.first
	if t == nil {
		return owner, false
	}
	w.due.remove(t)
	return t.owner, true
}

// soonestLook is how many timers of a slot Soonest looks at.
const soonestLook = 64

// Soonest returns the owner of the timer that is due first, which stays in the wheel;
// ok is false when the wheel is empty. With more timers than 64 in the slot that is
// entered next it is right only if the earliest was among the first of them to be
// set, as it is when all are set for the same time ahead; else its time is off by
// less than that slot spans.
func (w *Wheel[T]) Soonest() (owner T, ok bool) {
	t := w.due.first
	if t == nil {
		level, start, any := w.first()
		if !any {
			return owner, false
		}
		t = w.slot[level][w.index(start, level)].first
		for other, n := t.next, 1; other != nil && n < soonestLook; other, n = other.next, n+1 {
			if other.when < t.when {
				t = other
			}
		}
	}
	return t.owner, true
}

// Next returns the earliest time at which Advance has work to do, and false if
// it never will. It is the next deadline, or, for a deadline more than 64 ticks
// away, possibly the earlier time at which it moves to a lower level: a timer
// causes at most one such wake-up a level.
func (w *Wheel[T]) Next() (Tick, bool) {
	if w.due.first != nil {
		return w.now, true
	}
	_, start, ok := w.first()
	return start, ok
}

// first returns the level and the starting time of the occupied slot that is
// entered next.
func (w *Wheel[T]) first() (level int, start Tick, ok bool) {
	for level := range levels {
		if slots := w.occupied[level]; slots != 0 {
			shift := level * slotBits
			above := w.now >> shift >> slotBits << slotBits << shift // bits above the level
			return level, above | Tick(bits.TrailingZeros64(slots))<<shift, true
		}
	}
	return 0, 0, false
}

// place puts t, which is in no list, where its time belongs.
func (w *Wheel[T]) place(t *Timer[T]) {
	if t.when <= w.now {
		w.due.add(t)
		return
	}
	level, slot := w.position(t.when)
	w.slot[level][slot].add(t)
	w.occupied[level] |= 1 << slot
}

// position returns where a timer due at when, later than now, stands.
func (w *Wheel[T]) position(when Tick) (level, slot int) {
	level = (bits.Len64(uint64(when^w.now)) - 1) / slotBits
	return level, w.index(when, level)
}

func (w *Wheel[T]) index(when Tick, level int) int {
	return int(when >> (level * slotBits) % slots)
}

func (l *list[T]) add(t *Timer[T]) {
	if l.first == nil {
		l.end = &l.first
	}
	t.next, t.link = nil, l.end
	*l.end = t
	l.end = &t.next
}

func (l *list[T]) remove(t *Timer[T]) {
	*t.link = t.next
	if t.next != nil {
		t.next.link = t.link
	} else {
		l.end = t.link
	}
	t.next, t.link = nil, nil
}
