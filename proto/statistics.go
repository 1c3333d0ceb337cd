package proto

import (
	"fmt"
	"slices"
)

// Statistic is one number of the reply to AdminStatistics.
type Statistic struct {
	Name  string
	Gauge bool // else it counts, and never falls in a process
	Help  string
}

// Histogram counts values by size: as the statistics NAME_le_BOUND for each bound and
// NAME_le_inf, the number of values up to that bound, smaller ones included, and NAME_sum.
type Histogram struct {
	Name   string
	Bounds []int64
	Help   string
}

// Names returns the names of the histogram's statistics, NAME_sum last.
func (h Histogram) Names() (names []string) {
	for _, bound := range h.Bounds {
		names = append(names, fmt.Sprintf("%s_le_%d", h.Name, bound))
	}
	return append(names, h.Name+"_le_inf", h.Name+"_sum")
}

var (
	// FoundAge is how long connections had been cached when they were found.
	FoundAge = Histogram{"found_age_ms", []int64{10, 100, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000},
		"milliseconds that connections had been cached when they were found"}
	// RequestTime is an upper bound of how long requests took: all that are answered in a turn
	// count as long as from its beginning, when the kernel says what has arrived, to its
	// end. What waited for that turn in the kernel is not in it.
	RequestTime = Histogram{"request_us", []int64{10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000},
		"microseconds from the beginning of the turn that read a request to its end, when all its replies were sent"}
)

// Statistics are the numbers that AdminStatistics gives, in order, after the texts version
// and cache (the name of the cache that was asked, empty under master(8)). Those marked (process) are
// of all caches of the process, the others of this one.
//
// Every connection saved leaves once: connections_saved is the sum of all closed_*, of
// connections and of connections_found. Every hit is found once: endpoint_hits and
// destination_hits are the sum of closed_taken, connections_put_back and connections_found.
var Statistics = slices.Concat([]Statistic{
	{"uptime_ms", true, "milliseconds since the start (process)"},
	{"paused", true, "1 if nothing is found nor saved: by admin_pause, or for a mistake in the parameters"},

	{"endpoint_hits", false, "find_endp requests that found a connection"},
	{"endpoint_misses", false, "find_endp requests that found none"},
	{"destination_hits", false, "find_dest requests that found a connection"},
	{"destination_misses", false, "find_dest requests that found none"},

	{"connections_saved", false, "save_endp requests whose connection was cached"},
	{"connections_put_back", false, "connections that were found, and not taken by their client"},
	{"connections_ignored", false, "save_endp requests while paused"},
	{"connections_declined", false, "save_endp requests whose connection the policy declined"},
	{"bindings_saved", false, "save_dest requests that made a new binding"},
	{"bindings_refreshed", false, "save_dest requests for a binding that there was"},
	{"bindings_ignored", false, "save_dest requests while paused"},
	{"bindings_declined", false, "save_dest requests that the policy declined"},
	{"bindings_expired", false, "bindings whose time to live was over"},
	{"bindings_displaced", false, "bindings dropped to make room"},
	{"bindings_flushed", false, "bindings dropped by admin_flush"},

	{"closed_taken", false, "connections that a client has taken: our copy"},
	{"closed_expired", false, "connections whose time to live was over"},
	{"closed_evicted", false, "connections that made room for others"},
	{"closed_hung_up", false, "connections whose far end closed them"},
	{"closed_unsolicited", false, "connections on which the far end spoke unasked"},
	{"closed_flushed", false, "connections dropped by admin_flush"},
	{"closed_client_gone", false, "connections found, not taken, and expired meanwhile"},
	{"closed_shutdown", false, "connections closed because the process ends"},

	{"requests", false, "requests answered, of every kind"},
	{"admin_requests", false, "admin requests among them"},
	{"admin_denied", false, "admin requests of users that may make none"},
	{"ttl_lowered", false, "times to live lowered to connection_cache_ttl_limit"},
	{"ttl_lowered_by_policy", false, "times to live lowered to what the policy says"},
	{"saves_refused", false, "saves without room for their texts"},
	{"descriptors_lost", false, "descriptors that clients sent and there was no room for"},
	{"clients_delayed", false, "times that clients could not be accepted at once"},
	{"handovers_delayed", false, "hand-overs that had to wait for the kernel"},
	{"clients_disconnected", false, "clients disconnected for the memory that they made us keep"},
	{"clients_accepted", false, "clients in all"},
	{"bytes_received", false, "bytes of clients"},
	{"bytes_sent", false, "bytes to clients"},
	{"turns", false, "turns of the event loop (process)"},
	{"log_lines_lost", false, "lines that the log did not take (process)"},
	{"warnings_suppressed", false, "warnings about clients above the rate that is logged"},

	{"clients", true, "clients connected"},
	{"clients_peak", true, "most clients at a time"},
	{"connections", true, "connections cached"},
	{"connections_peak", true, "most connections at a time"},
	{"connections_found", true, "connections found, and on their way to clients"},
	{"connections_closing", true, "connections out of the cache and not closed yet (process)"},
	{"endpoints", true, "endpoints with a connection"},
	{"destinations", true, "destinations with a binding"},
	{"bindings", true, "bindings"},
	{"text_bytes", true, "bytes of labels and properties"},
	{"client_memory_bytes", true, "bytes of unfinished requests and unread replies (process)"},
	{"connection_limit", true, "connections that may be cached: connection_cache_size_limit, or what the limit of open files allows"},
	{"descriptors", true, "open files (process)"},
	{"descriptor_limit", true, "the limit of open files (process)"},
	{"longest_turn_us", true, "microseconds of the longest turn of the event loop since the start (process)"},
}, FoundAge.statistics(), RequestTime.statistics())

func (h Histogram) statistics() (all []Statistic) {
	for _, name := range h.Names() {
		all = append(all, Statistic{name, false, h.Help})
	}
	return all
}
