package postfix

import (
	"sync/atomic"
	"testing"
	"time"
)

// watchdogRole hangs in a turn.
func watchdogRole() {
	l := NewStderrLog(DatedText)
	w := NewWatchdog(30*time.Millisecond, func() { l.Fatalf("watchdog timeout") })
	w.Busy()
	select {}
}

func TestWatchdogBites(t *testing.T) {
	out, status := role(t, "watchdog")
	wantEqual(t, "status", status, 1)
	wantEqual(t, "line", textOf(out), "fatal: watchdog timeout\n")
}

// The timer is driven by hand: the dog bites at the fourth look at the same turn,
// and neither at a new turn each time nor while there is none.
func TestWatchdogLooks(t *testing.T) {
	bites := 0
	w := NewWatchdog(time.Hour, func() { bites++ })
	defer w.Stop()
	look := func(n int) {
		for range n {
			w.look()
		}
	}
	look(10)
	wantEqual(t, "bites without a turn", bites, 0)
	for range 10 {
		w.Busy()
		look(watchdogSteps)
		w.Idle()
	}
	wantEqual(t, "bites of short turns", bites, 0)
	look(10)
	wantEqual(t, "bites asleep", bites, 0)
	w.Busy()
	look(watchdogSteps)
	wantEqual(t, "bites too early", bites, 0)
	look(1)
	wantEqual(t, "bites", bites, 1)
}

func TestWatchdogTimer(t *testing.T) {
	var bites atomic.Int32
	bitten := make(chan bool)
	w := NewWatchdog(time.Millisecond, func() {
		if bites.Add(1) == 1 {
			close(bitten)
		}
	})
	defer w.Stop()
	w.Busy()
	<-bitten
	time.Sleep(20 * time.Millisecond)
	wantEqual(t, "bites", bites.Load(), 1)
}

func BenchmarkWatchdogTurn(b *testing.B) {
	w := NewWatchdog(time.Hour, func() {})
	defer w.Stop()
	for b.Loop() {
		w.Busy()
		w.Idle()
	}
}
