package server

import (
	"fmt"
	"hash/maphash"
	"testing"

	"github.com/scache/scache/timerwheel"
)

// told returns what is told, by label.
func (a *activity) told(now int) map[string]lookedUp {
	all := map[string]lookedUp{}
	for place, more := 0, true; more; {
		var d lookedUp
		if d, more = a.next(&place, timerwheel.Tick(now)); d.told {
			all[string(d.label)] = d
		}
	}
	return all
}

func TestActivityHalves(t *testing.T) {
	a := newActivity()
	for range 6 {
		a.count([]byte("d"), 0, true)
	}
	a.count([]byte("d"), 10, false)
	a.count([]byte(""), 10, false)
	for periods, want := range []string{"6 1", "3 0.5", "1.5 0.25"} {
		d := a.told(periods * int(activePeriod))["d"]
		if got := fmt.Sprint(d.hits, " ", d.misses); got != want {
			t.Errorf("after %d periods: %s, want %s", periods, got, want)
		}
	}
	if _, there := a.told(0)[""]; !there {
		t.Error("the empty label is not told")
	}
	if all := a.told(100 * int(activePeriod)); len(all) > 0 {
		t.Errorf("%d destinations are told long after", len(all))
	}
}

// What was busy once gives way to what is so today.
func TestActivityForgets(t *testing.T) {
	a := newActivity()
	var labels []string // of one set, twice as many as it has places
	for i := 0; len(labels) < 2*activeWays; i++ {
		label := fmt.Sprint("d", i)
		if maphash.String(a.seed, label)%activeSets == 0 {
			labels = append(labels, label)
		}
	}
	const day = 24 * 60 * activePeriod
	for _, label := range labels[:activeWays] {
		for range 10_000 {
			a.count([]byte(label), 0, true)
		}
	}
	for range 10 {
		for _, label := range labels[activeWays:] {
			a.count([]byte(label), day, true)
		}
	}
	all := a.told(int(day))
	for _, label := range labels[activeWays:] {
		if all[label].hits < 10 {
			t.Errorf("%s: %.0f hits, want 10", label, all[label].hits)
		}
	}
}

// The busy ones stay, however many others come by, and there are never more than places.
func TestActivityKeepsTheBusy(t *testing.T) {
	a := newActivity()
	const busy = 32
	for i := range 100_000 {
		a.count(fmt.Appendf(nil, "busy%d", i%busy), 0, i%4 != 0)
		a.count(fmt.Appendf(nil, "once%d", i), 0, false)
	}
	all, kept := a.told(0), 0
	for i := range busy {
		if d, there := all[fmt.Sprint("busy", i)]; there && d.hits+d.misses > 1000 {
			kept++
		}
	}
	// Five of 32 in one of 64 sets, or more, have no places: that is rare.
	if kept < busy-4 || len(all) > activeSets*activeWays {
		t.Errorf("%d of %d busy destinations are told, %d in all", kept, busy, len(all))
	}
}

func TestActivityTakesLongLabels(t *testing.T) {
	a := newActivity()
	long := make([]byte, 1000)
	for i := range long {
		long[i] = 'x'
	}
	a.count(long, 0, true)
	if d, there := a.told(0)[string(long[:maxActiveLabel])]; !there || d.hits != 1 {
		t.Errorf("told: %v", a.told(0))
	}
}

func BenchmarkActivity(b *testing.B) {
	a := newActivity()
	var labels [1000][]byte
	for i := range labels {
		labels[i] = fmt.Appendf(nil, "smtp\nexample%d.com\n25\n", i)
	}
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint("destinations=", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				a.count(labels[i%n], 0, i%3 == 0)
			}
		})
	}
}

func BenchmarkEndTurn(b *testing.B) {
	s, err := New(Config{Log: discard{}, TTLLimit: 1e9, StatusUpdateTime: 1e9, IPCTimeout: 1e9, Parent: -1}, Cache{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.caches[0].counters.requests++
		s.endTurn()
	}
}
