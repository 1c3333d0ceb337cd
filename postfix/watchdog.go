package postfix

import (
	"sync/atomic"
	"time"
)

// watchdogSteps is into how many pieces the limit is cut (util/watchdog.c): the
// dog looks that often, and bites when it saw the same turn all those times.
const watchdogSteps = 3

// Watchdog ends a process whose loop hangs: one whose turn lasts longer than
// daemon_timeout. Time asleep between turns does not count. It costs two atomic
// additions a turn and a timer three times a daemon_timeout; no goroutine stands by.
type Watchdog struct {
	turn  atomic.Uint64 // odd: a turn is under way
	step  time.Duration
	bite  func()
	timer *time.Timer

	// Of the timer's function only.
	seen  uint64
	trips int
}

// NewWatchdog calls bite, once and on a goroutine of its own, when a turn has
// lasted longer than limit; at the latest after a third more.
func NewWatchdog(limit time.Duration, bite func()) *Watchdog {
	w := &Watchdog{step: max(limit/watchdogSteps, 1), bite: bite}
	w.timer = time.AfterFunc(time.Hour, w.look)
	w.timer.Reset(w.step)
	return w
}

// Busy begins a turn.
func (w *Watchdog) Busy() { w.turn.Add(1) }

// Idle ends a turn.
func (w *Watchdog) Idle() { w.turn.Add(1) }

// Stop puts the dog to sleep for good.
func (w *Watchdog) Stop() { w.timer.Stop() }

func (w *Watchdog) look() {
	turn := w.turn.Load()
	if turn%2 == 1 && turn == w.seen {
		w.trips++
	} else {
		w.seen, w.trips = turn, 0
	}
	if w.trips == watchdogSteps {
		w.bite()
		return
	}
	w.timer.Reset(w.step)
}
