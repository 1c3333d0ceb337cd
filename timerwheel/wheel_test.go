package timerwheel

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

type item struct {
	id    int
	timer Timer[*item]
}

// twin is the wheel as one would write it without caring for speed.
type twin struct {
	now  Tick
	when map[*item]Tick
}

func (w *twin) due() map[*item]bool {
	due := map[*item]bool{}
	for it, when := range w.when {
		if when <= w.now {
			due[it] = true
		}
	}
	return due
}

func (w *twin) earliest() (Tick, bool) {
	earliest, ok := Tick(math.MaxUint64), false
	for _, when := range w.when {
		earliest, ok = min(earliest, when), true
	}
	return max(earliest, w.now), ok
}

// distance draws small and huge distances alike, and those next to a slot's edge.
func distance() *rapid.Generator[Tick] {
	return rapid.Custom(func(t *rapid.T) Tick {
		shift := rapid.IntRange(0, 63).Draw(t, "shift")
		edge := Tick(1) << shift
		return edge + Tick(rapid.IntRange(-2, 2).Draw(t, "offset"))
	})
}

func later(now, by Tick) Tick {
	if now+by < now {
		return math.MaxUint64
	}
	return now + by
}

func TestWheelAgreesWithTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var wheel Wheel[*item]
		naive := twin{when: map[*item]Tick{}}
		items := make([]item, 8)
		for i := range items {
			items[i].id = i
		}
		anItem := rapid.Custom(func(t *rapid.T) *item {
			return &items[rapid.IntRange(0, len(items)-1).Draw(t, "item")]
		})
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				it := anItem.Draw(t, "")
				when := later(wheel.Now(), distance().Draw(t, "by"))
				wheel.Set(&it.timer, it, when)
				naive.when[it] = when
			},
			"setPast": func(t *rapid.T) {
				it := anItem.Draw(t, "")
				when := wheel.Now() - min(wheel.Now(), Tick(rapid.IntRange(0, 3).Draw(t, "ago")))
				wheel.Set(&it.timer, it, when)
				naive.when[it] = when
			},
			"stop": func(t *rapid.T) {
				it := anItem.Draw(t, "")
				wheel.Stop(&it.timer)
				delete(naive.when, it)
			},
			"advance": func(t *rapid.T) {
				now := later(wheel.Now(), distance().Draw(t, "by"))
				wheel.Advance(now)
				naive.now = now
			},
			"advanceToNext": func(t *rapid.T) {
				if next, ok := wheel.Next(); ok {
					wheel.Advance(next)
					naive.now = max(naive.now, next)
				}
			},
			"backwards": func(t *rapid.T) {
				wheel.Advance(wheel.Now() / 2)
			},
			"takeOne": func(t *rapid.T) {
				due := naive.due()
				it, ok := wheel.Expired()
				if ok != (len(due) > 0) || ok && !due[it] {
					t.Fatalf("Expired() = %v, %v; due are %d", it, ok, len(due))
				}
				if ok {
					delete(naive.when, it)
				}
			},
			"takeAll": func(t *rapid.T) {
				due := naive.due()
				for it, ok := wheel.Expired(); ok; it, ok = wheel.Expired() {
					if !due[it] {
						t.Fatalf("item %d expired twice or early", it.id)
					}
					delete(due, it)
					delete(naive.when, it)
				}
				if len(due) > 0 {
					t.Fatalf("%d due timers did not expire", len(due))
				}
			},
			"": func(t *rapid.T) {
				check(t, &wheel, &naive, items)
			},
		})
	})
}

func check(t *rapid.T, wheel *Wheel[*item], naive *twin, items []item) {
	if wheel.Now() != naive.now {
		t.Fatalf("Now() = %d, want %d", wheel.Now(), naive.now)
	}
	for i := range items {
		when, pending := naive.when[&items[i]]
		if items[i].timer.Pending() != pending {
			t.Fatalf("item %d: Pending() = %v", i, !pending)
		}
		if pending && items[i].timer.When() != when {
			t.Fatalf("item %d: When() = %d, want %d", i, items[i].timer.When(), when)
		}
	}
	next, ok := wheel.Next()
	earliest, any := naive.earliest()
	if ok != any {
		t.Fatalf("Next() = %v, want %v", ok, any)
	}
	if ok && (next > earliest || next < wheel.Now()) {
		t.Fatalf("Next() = %d, later than the earliest deadline %d or before now %d", next, earliest, wheel.Now())
	}
	if soonest, ok := wheel.Soonest(); ok != any || ok && max(soonest.timer.When(), wheel.Now()) != earliest {
		t.Fatalf("Soonest() = %v, %v, want one of %d", soonest, ok, earliest)
	}
	if ok && earliest^wheel.Now() < slots && next != earliest {
		t.Fatalf("Next() = %d, want exactly %d on the lowest level", next, earliest)
	}
}

// A sleeper that trusts Next wakes at most once a level for one timer.
func TestNextWakesAtMostOnceALevel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var wheel Wheel[*item]
		wheel.Advance(Tick(rapid.Uint64Range(0, 1<<62).Draw(t, "start")))
		var it item
		when := later(wheel.Now(), distance().Draw(t, "by"))
		wheel.Set(&it.timer, &it, when)
		wakes := 0
		for it.timer.Pending() {
			next, _ := wheel.Next()
			wheel.Advance(next)
			wheel.Expired()
			if wakes++; wakes > levels {
				t.Fatalf("still pending after %d wake-ups", wakes)
			}
		}
		if wheel.Now() != when && when > 0 {
			t.Fatalf("expired at %d instead of %d", wheel.Now(), when)
		}
	})
}

// However many there are: as long as all are set for the same time ahead.
func TestSoonestOfMany(t *testing.T) {
	var wheel Wheel[*item]
	items := make([]item, 10*soonestLook)
	for i := range items {
		items[i].id = i
		wheel.Advance(Tick(i / 3))
		wheel.Set(&items[i].timer, &items[i], wheel.Now()+5000)
	}
	for i := range items {
		it, _ := wheel.Soonest()
		if it.timer.When() != items[i].timer.When() {
			t.Fatalf("number %d is due at %d, want %d", i, it.timer.When(), items[i].timer.When())
		}
		wheel.Stop(&it.timer)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	var wheel Wheel[*item]
	items := make([]item, 1000)
	if n := testing.AllocsPerRun(10, func() {
		for i := range items {
			wheel.Set(&items[i].timer, &items[i], wheel.Now()+Tick(i*i))
		}
		wheel.Advance(wheel.Now() + 500_000)
		for _, ok := wheel.Expired(); ok; _, ok = wheel.Expired() {
		}
		for i := range items {
			wheel.Stop(&items[i].timer)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkSetStop(b *testing.B) {
	var wheel Wheel[*item]
	items := make([]item, 20_000)
	for i := range items {
		wheel.Set(&items[i].timer, &items[i], Tick(2000+i))
	}
	b.ReportAllocs()
	for i := range b.N {
		it := &items[i%len(items)]
		wheel.Stop(&it.timer)
		wheel.Set(&it.timer, it, Tick(2000+i%4096))
	}
}
