package server

import (
	"fmt"

	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
)

// counters are what admin_statistics tells beyond the log's statistics; they count from the start, and
// no report resets them.
type counters struct {
	past statistics // the sum of what was reported

	saved, putBack                    int // connections
	taken                             int
	bound                             int // save_dest requests
	boundBefore, displacedBefore      int // bindings, by the server before us
	flushedBindings                   int
	ignored, ignoredBindings          int // saves while paused
	requests, admin, denied           int
	received, sent                    int // bytes
	clients, clientsPeak, clientsEver int

	foundAge    histogram // milliseconds
	requestTime histogram // microseconds
	timed       int       // requests that are in requestTime
}

func newCounters() counters {
	return counters{
		foundAge:    newHistogram(proto.FoundAge),
		requestTime: newHistogram(proto.RequestTime),
	}
}

// histogram counts values by size.
type histogram struct {
	bounds []int64
	counts []int // of what is above the bound before and not above its own; the last one has none
	sum    int
}

func newHistogram(of proto.Histogram) histogram {
	return histogram{bounds: of.Bounds, counts: make([]int, len(of.Bounds)+1)}
}

// count counts a value so many times.
func (h *histogram) count(value int64, times int) {
	i := 0
	for i < len(h.bounds) && value > h.bounds[i] {
		i++
	}
	h.counts[i] += times
	h.sum += int(value) * times
}

func (c *counters) arrived() {
	c.clientsEver++
	c.clients++
	c.clientsPeak = max(c.clientsPeak, c.clients)
}

// handed are the counters as a successor goes on with them.
func (c *cache) handed() counters {
	handed := c.counters
	handed.boundBefore += c.store.Bound()
	handed.displacedBefore += c.store.Displaced()
	return handed
}

// each calls visit with each counter that a successor goes on with, by a name that stays the
// same in all versions.
func (c *counters) each(visit func(name string, counter *int)) {
	c.past.each(func(name string, counter *int) { visit("past "+name, counter) })
	visit("saved", &c.saved)
	visit("put back", &c.putBack)
	visit("taken", &c.taken)
	visit("bound", &c.bound)
	visit("bound before", &c.boundBefore)
	visit("displaced before", &c.displacedBefore)
	visit("flushed bindings", &c.flushedBindings)
	visit("ignored", &c.ignored)
	visit("ignored bindings", &c.ignoredBindings)
	visit("requests", &c.requests)
	visit("admin", &c.admin)
	visit("denied", &c.denied)
	visit("received", &c.received)
	visit("sent", &c.sent)
	visit("clients peak", &c.clientsPeak)
	visit("clients ever", &c.clientsEver)
	visit("timed", &c.timed)
	c.foundAge.each("found age", visit)
	c.requestTime.each("request time", visit)
}

func (h *histogram) each(name string, visit func(name string, counter *int)) {
	for i, bound := range h.bounds {
		visit(fmt.Sprint(name, " ", bound), &h.counts[i])
	}
	visit(name+" more", &h.counts[len(h.bounds)])
	visit(name+" sum", &h.sum)
}

// figures are what is the process's and not a cache's.
type figures struct {
	version                      string
	uptime                       int // milliseconds
	turns, longestTurn           int // number, microseconds
	clientMemory                 int
	closing                      int
	descriptors, descriptorLimit int
	logLost                      int
}

func (s *Server) figures() figures {
	f := figures{
		version:         s.config.Version,
		uptime:          int(s.elapsed.Milliseconds()),
		turns:           s.turns,
		longestTurn:     int(s.longestTurn.Microseconds()),
		clientMemory:    s.held,
		closing:         s.farewell.length(),
		descriptors:     s.descriptors.inUse(),
		descriptorLimit: s.descriptors.limit,
	}
	if log, ok := s.config.Log.(interface{ Dropped() uint64 }); ok {
		f.logLost = int(log.Dropped())
	}
	return f
}

// appendStatistics appends all of them by the names in proto.Statistics, in that order.
func (c *cache) appendStatistics(out []byte) []byte {
	counted, past, size, process := &c.counters, c.counters.past, c.store.Size(), c.process()
	past.add(&c.stats)
	closedBy := func(why store.Reason) int { return past.closed[why] }
	bound, displaced := counted.boundBefore+c.store.Bound(), counted.displacedBefore+c.store.Displaced()
	expiredBindings := bound - size.Bindings - displaced - counted.flushedBindings
	found := past.endpoints.hits + past.destinations.hits - counted.taken - counted.putBack

	r := reply{proto.AppendOK(out)}
	r.text("version", process.version)
	r.text("cache", c.name)
	r.number("uptime_ms", process.uptime)
	r.flag("paused", c.paused)

	r.number("endpoint_hits", past.endpoints.hits)
	r.number("endpoint_misses", past.endpoints.misses)
	r.number("destination_hits", past.destinations.hits)
	r.number("destination_misses", past.destinations.misses)

	r.number("connections_saved", counted.saved)
	r.number("connections_put_back", counted.putBack)
	r.number("connections_ignored", counted.ignored)
	r.number("connections_declined", closedBy(store.Declined))
	r.number("bindings_saved", bound)
	r.number("bindings_refreshed", counted.bound-bound)
	r.number("bindings_ignored", counted.ignoredBindings)
	r.number("bindings_declined", past.declinedBindings)
	r.number("bindings_expired", expiredBindings)
	r.number("bindings_displaced", displaced)
	r.number("bindings_flushed", counted.flushedBindings)

	r.number("closed_taken", counted.taken)
	r.number("closed_expired", closedBy(store.Expired))
	r.number("closed_evicted", closedBy(store.Evicted))
	r.number("closed_hung_up", closedBy(store.HungUp))
	r.number("closed_unsolicited", closedBy(store.Unsolicited))
	r.number("closed_flushed", closedBy(store.Flushed))
	r.number("closed_client_gone", closedBy(store.ClientGone))
	r.number("closed_shutdown", closedBy(store.Shutdown))

	r.number("requests", counted.requests)
	r.number("admin_requests", counted.admin)
	r.number("admin_denied", counted.denied)
	r.number("ttl_lowered", past.lowered)
	r.number("ttl_lowered_by_policy", past.loweredByPolicy)
	r.number("saves_refused", past.refused)
	r.number("descriptors_lost", past.lost)
	r.number("clients_delayed", past.delayedClients)
	r.number("handovers_delayed", past.delayedHandovers)
	r.number("clients_disconnected", past.disconnected)
	r.number("clients_accepted", counted.clientsEver)
	r.number("bytes_received", counted.received)
	r.number("bytes_sent", counted.sent)
	r.number("turns", process.turns)
	r.number("log_lines_lost", process.logLost)
	r.number("warnings_suppressed", c.faults.total)

	r.number("clients", counted.clients)
	r.number("clients_peak", counted.clientsPeak)
	r.number("connections", size.Connections)
	r.number("connections_peak", past.maxConnections)
	r.number("connections_found", found)
	r.number("connections_closing", process.closing)
	r.number("endpoints", size.Endpoints)
	r.number("destinations", size.Destinations)
	r.number("bindings", size.Bindings)
	r.number("text_bytes", size.Text)
	r.number("client_memory_bytes", process.clientMemory)
	r.number("connection_limit", c.store.Limits.Connections)
	r.number("descriptors", process.descriptors)
	r.number("descriptor_limit", process.descriptorLimit)
	r.number("longest_turn_us", process.longestTurn)

	r.histogram(proto.FoundAge, &counted.foundAge)
	r.histogram(proto.RequestTime, &counted.requestTime)
	return proto.AppendEnd(r.out)
}
