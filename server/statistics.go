package server

import (
	"fmt"
	"strings"
	"time"

	"github.com/scache/scache/store"
)

// statistics are the counters of scache(8)'s report. What is counted and when, and the lines' wording,
// are scache/scache.c's, because log tools parse them.
type statistics struct {
	since        time.Time
	destinations lookups
	endpoints    lookups
	earlier      lookups // of both kinds, before since

	// Largest sizes, sampled after saves since the last report.
	maxDestinations int
	maxEndpoints    int
	maxConnections  int

	// What Postfix's scache(8) does not have.
	closed           [store.Reasons]int // without a client
	lowered          int                // times to live lowered to connection_cache_ttl_limit
	refused          int                // saves for whose texts there was no room
	lost             int                // descriptors that clients sent and we had no room for
	delayedClients   int                // clients that could not be accepted at once
	delayedHandovers int                // hand-overs that had to wait for others on their way
	disconnected     int                // clients disconnected for what they made us keep
	displaced        int                // bindings dropped to make room, up to the last report

	declinedBindings int // bindings that the policy declined
	loweredByPolicy  int // times to live that it lowered
}

// each calls visit with each counter, by a name that stays the same in all versions.
func (s *statistics) each(visit func(name string, counter *int)) {
	visit("destination hits", &s.destinations.hits)
	visit("destination misses", &s.destinations.misses)
	visit("endpoint hits", &s.endpoints.hits)
	visit("endpoint misses", &s.endpoints.misses)
	visit("earlier hits", &s.earlier.hits)
	visit("earlier misses", &s.earlier.misses)
	visit("most destinations", &s.maxDestinations)
	visit("most endpoints", &s.maxEndpoints)
	visit("most connections", &s.maxConnections)
	for why := range s.closed {
		visit("closed "+store.Reason(why).String(), &s.closed[why])
	}
	visit("lowered", &s.lowered)
	visit("refused", &s.refused)
	visit("lost", &s.lost)
	visit("rejected", &s.delayedClients)
	visit("crowded", &s.delayedHandovers)
	visit("greedy", &s.disconnected)
	visit("displaced", &s.displaced)
	visit("unbound", &s.declinedBindings)
	visit("shortened", &s.loweredByPolicy)
}

type lookups struct{ hits, misses int }

func (l *lookups) count(hit bool) {
	if hit {
		l.hits++
	} else {
		l.misses++
	}
}

func (l *lookups) add(more lookups) {
	l.hits += more.hits
	l.misses += more.misses
}

func (l lookups) any() bool { return l.hits+l.misses > 0 }

func (l lookups) log(log Logger, kind string) {
	if l.any() {
		log.Infof("statistics: %s lookup hits=%d miss=%d success=%d%%",
			kind, l.hits, l.misses, l.hits*100/(l.hits+l.misses))
	}
}

// lookups are all since the server has started.
func (s *statistics) lookups() lookups {
	return lookups{
		hits:   s.earlier.hits + s.destinations.hits + s.endpoints.hits,
		misses: s.earlier.misses + s.destinations.misses + s.endpoints.misses,
	}
}

func (s *statistics) savedEndpoint(size store.Size) {
	s.maxEndpoints = max(s.maxEndpoints, size.Endpoints)
	s.maxConnections = max(s.maxConnections, size.Connections)
}

func (s *statistics) savedDestination(size store.Size) {
	s.maxDestinations = max(s.maxDestinations, size.Destinations)
	s.maxEndpoints = max(s.maxEndpoints, size.Endpoints)
}

// add adds what was counted since the last report.
func (s *statistics) add(more *statistics) {
	s.destinations.add(more.destinations)
	s.endpoints.add(more.endpoints)
	s.maxConnections = max(s.maxConnections, more.maxConnections)
	for why := range s.closed {
		s.closed[why] += more.closed[why]
	}
	s.lowered += more.lowered
	s.refused += more.refused
	s.lost += more.lost
	s.delayedClients += more.delayedClients
	s.delayedHandovers += more.delayedHandovers
	s.disconnected += more.disconnected
	s.declinedBindings += more.declinedBindings
	s.loweredByPolicy += more.loweredByPolicy
}

// report logs what has been counted, if anything, and begins anew at now. displaced
// is the number of bindings dropped to make room since the server has started; governed says that
// there is a policy.
func (s *statistics) report(log Logger, now time.Time, displaced int, governed bool) {
	sizes := s.maxDestinations > 0 || s.maxEndpoints > 0 || s.maxConnections > 0
	if sizes || s.destinations.any() || s.endpoints.any() {
		// ctime(3) without weekday and year, in local time.
		log.Infof("statistics: start interval %s", s.since.Local().Format(time.Stamp))
	}
	s.destinations.log(log, "domain")
	s.endpoints.log(log, "address")
	if sizes {
		log.Infof("statistics: max simultaneous domains=%d addresses=%d connection=%d",
			s.maxDestinations, s.maxEndpoints, s.maxConnections)
	}
	s.reportMore(log, displaced-s.displaced, governed)
	*s = statistics{since: now, earlier: s.lookups(), displaced: displaced}
}

// reportMore logs, in one line, what Postfix's report has no words for, if any of it has happened.
func (s *statistics) reportMore(log Logger, displaced int, governed bool) {
	closed := s.closed
	closed[store.Expired], closed[store.Shutdown] = 0, 0
	if closed == [store.Reasons]int{} && s.lowered+s.refused+s.lost+s.delayedClients+s.delayedHandovers+s.disconnected+displaced+s.declinedBindings+s.loweredByPolicy == 0 {
		return
	}
	var line strings.Builder
	line.WriteString("closed:")
	for why, n := range s.closed {
		if why := store.Reason(why); why != store.Declined || governed {
			fmt.Fprintf(&line, " %v=%d", why, n)
		}
	}
	fmt.Fprintf(&line, "; displaced bindings=%d lowered ttl=%d refused saves=%d lost descriptors=%d delayed clients=%d delayed hand-overs=%d disconnected clients=%d",
		displaced, s.lowered, s.refused, s.lost, s.delayedClients, s.delayedHandovers, s.disconnected)
	if governed {
		fmt.Fprintf(&line, "; policy: declined bindings=%d lowered ttl=%d", s.declinedBindings, s.loweredByPolicy)
	}
	log.Infof("%s", line.String())
}
