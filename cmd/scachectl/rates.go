package main

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/scache/scache/client"
)

// sample is what top reads at a time.
type sample struct {
	statistics   client.Statistics
	destinations []client.DestinationActivity
}

// rates are what happened between two samples of one server, per second. In JSON,
// times are in microseconds.
type rates struct {
	Lookups  float64            `json:"lookups_per_second"`
	Hits     float64            `json:"hits_per_second"`
	Saves    float64            `json:"saves_per_second"`
	Requests float64            `json:"requests_per_second"`
	Closed   map[string]float64 `json:"closed_per_second"` // by reason
	MeanTime int64              `json:"mean_request_us"`

	times requestTimes
}

// ratesBetween compares two samples; ok is false if they are not of one process.
func ratesBetween(earlier, later client.Statistics) (r rates, ok bool) {
	was, is := earlier.Values, later.Values
	elapsed := time.Duration(is["uptime_ms"]-was["uptime_ms"]) * time.Millisecond
	if was == nil || elapsed <= 0 || is["requests"] < was["requests"] {
		return r, false
	}
	perSecond := func(names ...string) (rate float64) {
		for _, name := range names {
			rate += float64(is[name]-was[name]) / elapsed.Seconds()
		}
		return rate
	}
	r.Hits = perSecond("destination_hits", "endpoint_hits")
	r.Lookups = r.Hits + perSecond("destination_misses", "endpoint_misses")
	r.Saves = perSecond("connections_saved")
	r.Requests = perSecond("requests")
	r.Closed = map[string]float64{}
	for _, reason := range reasons {
		r.Closed[reason] = perSecond("closed_" + reason)
	}
	r.times = requestTimesOf(later).since(requestTimesOf(earlier))
	r.MeanTime = r.times.mean().Microseconds()
	return r, true
}

// hitRatio is the share of look-ups that found a connection; ok is false if there
// were none.
func (r rates) hitRatio() (ratio float64, ok bool) {
	if r.Lookups == 0 {
		return 0, false
	}
	return r.Hits / r.Lookups, true
}

// column is one of top's table of destinations.
type column struct {
	title   string
	key     string // that sorts by it
	compare func(a, b client.DestinationActivity) int
}

func by[T cmp.Ordered](value func(d client.DestinationActivity) T) func(a, b client.DestinationActivity) int {
	return func(a, b client.DestinationActivity) int { return cmp.Compare(value(a), value(b)) }
}

func recent(d client.DestinationActivity) float64 { return d.Hits + d.Misses }

// share is the hit ratio of late.
func share(d client.DestinationActivity) float64 {
	if recent(d) == 0 {
		return 0
	}
	return d.Hits / recent(d)
}

var columns = []column{
	{"DESTINATION", "n", by(func(d client.DestinationActivity) string { return d.Destination })},
	{"CACHED", "c", by(func(d client.DestinationActivity) int64 { return d.Connections })},
	{"ENDPOINTS", "e", by(func(d client.DestinationActivity) int64 { return d.Bindings })},
	{"LOOK-UPS", "l", by(recent)},
	{"MISSES", "m", by(func(d client.DestinationActivity) float64 { return d.Misses })},
	{"HIT RATIO", "h", by(share)},
}

// sorted orders destinations by a column: names from A to Z, numbers from the
// largest, or the other way round.
func sorted(destinations []client.DestinationActivity, column int, reverse bool) []client.DestinationActivity {
	list := slices.Clone(destinations)
	if column != 0 {
		reverse = !reverse
	}
	slices.SortFunc(list, func(a, b client.DestinationActivity) int {
		order := columns[column].compare(a, b)
		if reverse {
			order = -order
		}
		return cmp.Or(order, strings.Compare(a.Destination, b.Destination))
	})
	return list
}
