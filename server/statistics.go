package server

import (
	"time"

	"github.com/scache/scache/store"
)

// statistics are the counters of scache(8)'s report: what is counted, when, and
// the lines themselves are those of scache/scache.c, because log tools parse them.
type statistics struct {
	since        time.Time
	destinations lookups
	endpoints    lookups

	// Largest sizes, sampled after saves since the last report.
	maxDestinations int
	maxEndpoints    int
	maxConnections  int
}

type lookups struct{ hits, misses int }

func (l *lookups) count(hit bool) {
	if hit {
		l.hits++
	} else {
		l.misses++
	}
}

func (l lookups) any() bool { return l.hits+l.misses > 0 }

func (l lookups) log(log Logger, kind string) {
	if l.any() {
		log.Infof("statistics: %s lookup hits=%d miss=%d success=%d%%",
			kind, l.hits, l.misses, l.hits*100/(l.hits+l.misses))
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

// report logs what has been counted, if anything, and begins anew at now.
func (s *statistics) report(log Logger, now time.Time) {
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
	*s = statistics{since: now}
}
