package server

import (
	"time"

	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
	"github.com/scache/scache/timerwheel"
)

// cache is what the sessions of its clients share. It makes system calls only by way of its
// watch and its functions, which tests of sessions do without.
type cache struct {
	*clock
	name      string
	store     *store.Store
	watch     *watch              // may be nil
	close     func(fd int)        // closes a connection
	drop      func(fd int)        // closes a socket that its client has as well
	culprit   func(fd int) string // tells who a client is; may be nil
	judge     *judge              // nil: there is no policy
	ttlLimit  int                 // seconds: connection_cache_ttl_limit
	log       Logger
	verbose   bool
	paused    bool  // nothing is found nor saved
	mistake   error // for which it is so until the process ends; or nil
	handsOver bool  // clients may ask to take over
	stats     statistics
	counters  counters
	activity  *activity
	faults    faults
	effort    int // beside the store's Effort, in the same measure, and not charged to a client yet

	limits       store.Limits    // as configured, or changed at run time
	lowering     *store.Lowering // these are not in force yet; or nil
	room         *int            // connections that the descriptors allow
	clientMemory *int            // connection_cache_client_memory_limit, of all caches

	restoring *store.Restoring // until we are the server, if another one was before

	// For admin requests.
	administrator func(client int) (refusal string)
	describe      func(fd int) (kind, remote string)
	process       func() figures
}

// save puts a prepared connection into the store, or closes it if the terms say so. They
// are nil if there is no policy.
func (c *cache) save(connection *store.Connection, fd, ttl int, t *terms) {
	if c.paused {
		c.counters.ignored++
		c.store.Release(connection)
		c.close(fd)
		return
	}
	if t != nil {
		if c.watch != nil {
			c.watch.polite(fd, t.quit)
		}
		if t.decline {
			c.store.Decline(connection, fd)
			return
		}
		c.store.Govern(connection, t.kept)
	}
	c.counters.saved++
	c.store.Save(connection, fd, c.deadline(ttl))
	c.stats.savedEndpoint(c.store.Size())
	if c.watch != nil {
		c.watch.begin(connection)
	}
}

// saveDestination saves a binding for ttl seconds, if the terms do not decline it. It returns false if
// there is no room.
func (c *cache) saveDestination(r *proto.Request, ttl int, t *terms) bool {
	if c.paused {
		c.counters.ignoredBindings++
		return true
	}
	if t != nil && t.decline {
		c.stats.declinedBindings++
		return true
	}
	if !c.store.SaveDestination(r.Destination, r.DestinationProperty, r.Endpoint, c.deadline(ttl)) {
		return false
	}
	c.counters.bound++
	c.stats.savedDestination(c.store.Size())
	return true
}

// putBack puts a connection back that no client has taken.
func (c *cache) putBack(connection *store.Connection) {
	c.counters.putBack++
	if c.store.PutBack(connection) && c.watch != nil {
		c.watch.begin(connection)
	}
}

// spent returns the work done since the last call beyond what every message costs, in bindings passed
// over.
func (c *cache) spent() (n int) {
	n, c.effort = c.effort+c.store.Effort(), 0
	return n
}

// stepsPerBinding is how many steps of a match with a pattern are charged as one binding. Nearly all
// matches take far fewer than they may.
const stepsPerBinding = 64

// chargeMatch charges a match that may have taken so many steps.
func (c *cache) chargeMatch(steps int) { c.effort += steps / stepsPerBinding }

// taken ends a connection that a client has taken, and still has if it is alive.
func (c *cache) taken(connection *store.Connection, alive bool) {
	fd := connection.FD()
	c.counters.taken++
	c.store.Release(connection)
	if alive && c.watch.socket(fd) {
		c.drop(fd)
	} else {
		c.close(fd)
	}
}

// maxUnfit bounds how many connections a look-up passes over because their far ends
// have hung up. Then there is none for it.
const maxUnfit = 64

func (c *cache) findEndpoint(endpoint []byte) *store.Connection {
	for n := 0; n < maxUnfit && !c.paused; n++ {
		if found := c.store.FindEndpoint(endpoint); found == nil || c.fit(found) {
			return found
		}
	}
	return nil
}

func (c *cache) findDestination(destination []byte) (*store.Connection, []byte) {
	for n := 0; n < maxUnfit && !c.paused; n++ {
		found, property := c.store.FindDestination(destination)
		if found == nil || c.fit(found) {
			return found, property
		}
	}
	return nil, nil
}

// fit takes the last look at a connection that was found. One that is unfit is
// closed.
func (c *cache) fit(found *store.Connection) bool {
	if c.watch != nil {
		if why, unfit := c.watch.look(found.FD()); unfit {
			c.store.Discard(found, why)
			c.effort += bindingsPerMessage
			return false
		}
		c.watch.end(found.FD())
	}
	c.counters.foundAge.count(int64(c.now-found.Saved()), 1)
	return true
}

// tick is how finely time is told. What is found is never past its time to live
// by more than a tick, and nothing expires before it.
const (
	tick           = time.Millisecond
	ticksPerSecond = timerwheel.Tick(time.Second / tick)
)

// clock is the time of this turn, in ticks since the server has started.
type clock struct{ now timerwheel.Tick }

// after returns the tick at which a duration is over that starts now. The present
// tick began up to a tick ago: counting from its end is never too early.
func (c *clock) after(d time.Duration) timerwheel.Tick {
	return c.now + 1 + timerwheel.Tick((d+tick-1)/tick)
}

// deadline is after, for a time to live in seconds, as limited by
// connection_cache_ttl_limit.
func (c *cache) deadline(ttl int) timerwheel.Tick {
	return c.now + 1 + timerwheel.Tick(min(ttl, c.ttlLimit))*ticksPerSecond
}

func (c *cache) reportStatistics() {
	c.counters.past.add(&c.stats)
	c.stats.report(c.log, time.Now(), c.store.Displaced(), c.judge != nil)
	switch {
	case c.mistake != nil:
		c.log.Warningf("nothing is cached: %v", c.mistake)
	case c.paused:
		c.log.Warningf("paused: nothing is cached")
	}
}
