package server

import (
	"time"

	"github.com/scache/scache/store"
	"github.com/scache/scache/timerwheel"
)

// cache is what all sessions share.
type cache struct {
	store    *store.Store
	now      timerwheel.Tick // of this turn
	ttlLimit int             // seconds: connection_cache_ttl_limit
	log      Logger
	verbose  bool
	stats    statistics
	faults   faults
}

// tick is how finely time is told. What is found is never past its time to live
// by more than a tick, and nothing expires before it.
const (
	tick           = time.Millisecond
	ticksPerSecond = timerwheel.Tick(time.Second / tick)
)

// after returns the tick at which a duration is over that starts now. The present
// tick began up to a tick ago: counting from its end is never too early.
func (c *cache) after(d time.Duration) timerwheel.Tick {
	return c.now + 1 + timerwheel.Tick((d+tick-1)/tick)
}

// deadline is after, for a time to live in seconds, as limited by
// connection_cache_ttl_limit.
func (c *cache) deadline(ttl int) timerwheel.Tick {
	return c.now + 1 + timerwheel.Tick(min(ttl, c.ttlLimit))*ticksPerSecond
}

// faults logs what clients do wrong, at a bounded rate: a client that is broken, or
// hostile, must not fill the log.
type faults struct {
	log        Logger
	interval   timerwheel.Tick // number of the interval that is counted
	lines      int             // in it
	suppressed int             // since the last line
}

const (
	faultInterval = 10 * ticksPerSecond
	faultLines    = 10 // an interval
)

func (f *faults) warn(now timerwheel.Tick, format string, arguments ...any) {
	if interval := now / faultInterval; interval != f.interval {
		f.interval, f.lines = interval, 0
	}
	if f.lines++; f.lines > faultLines {
		f.suppressed++
		return
	}
	if f.suppressed > 0 {
		f.log.Warningf("%d similar warnings were not logged", f.suppressed)
		f.suppressed = 0
	}
	f.log.Warningf(format, arguments...)
}
