package main

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scache/scache/proto"
)

// family is a metric of Prometheus, made of one statistic or of several that differ
// in labels.
type family struct {
	name   string
	help   string
	gauge  bool
	unit   float64 // what a statistic is divided by
	labels []string
	parts  []part
}

// part is a statistic and its values of the family's labels.
type part struct {
	statistic string
	values    []string
}

// families are the metrics, but for histograms, scache_up and scache_build_info.
// Every statistic of proto is in one; a test holds it.
func families() []family {
	help, gauge := map[string]string{}, map[string]bool{}
	for _, s := range proto.Statistics {
		help[s.Name], gauge[s.Name] = s.Help, s.Gauge
	}
	single := func(name, statistic string, unit float64) family {
		return family{name, help[statistic], gauge[statistic], unit, nil, []part{{statistic, nil}}}
	}
	all := []family{
		{"scache_lookups_total", "Requests for a connection, by what they name and what came of it.", false, 1, []string{"kind", "result"}, []part{
			{"destination_hits", []string{"destination", "hit"}}, {"destination_misses", []string{"destination", "miss"}},
			{"endpoint_hits", []string{"endpoint", "hit"}}, {"endpoint_misses", []string{"endpoint", "miss"}}}},
		{"scache_closed_total", "Connections that left the cache, by why.", false, 1, []string{"reason"}, byReason("closed_", reasons...)},
		{"scache_bindings_dropped_total", "Bindings that left the cache, by why.", false, 1, []string{"reason"},
			byReason("bindings_", "expired", "displaced", "flushed")},
		{"scache_saves_ignored_total", "Saves while paused.", false, 1, []string{"what"},
			[]part{{"connections_ignored", []string{"connection"}}, {"bindings_ignored", []string{"binding"}}}},
		{"scache_uptime_seconds", "Time since the start of the process, or of the first one if it has taken over.", true, 1000, nil, []part{{"uptime_ms", nil}}},
		{"scache_longest_turn_seconds", "The longest turn of the event loop since the start.", true, 1e6, nil, []part{{"longest_turn_us", nil}}},
		single("scache_received_bytes_total", "bytes_received", 1),
		single("scache_sent_bytes_total", "bytes_sent", 1),
		single("scache_open_fds", "descriptors", 1),
		single("scache_max_fds", "descriptor_limit", 1),
		single("scache_connections_limit", "connection_limit", 1),
	}
	used := map[string]bool{}
	for _, f := range all {
		for _, p := range f.parts {
			used[p.statistic] = true
		}
	}
	for _, s := range proto.Statistics {
		if used[s.Name] || inHistogram(s.Name) {
			continue
		}
		name := "scache_" + s.Name
		if !s.Gauge {
			name += "_total"
		}
		all = append(all, single(name, s.Name, 1))
	}
	return all
}

// byReason are statistics whose name ends in a reason.
func byReason(prefix string, reasons ...string) (parts []part) {
	for _, reason := range reasons {
		parts = append(parts, part{prefix + reason, []string{reason}})
	}
	return parts
}

// histogram is a metric made of a histogram of proto.
type histogram struct {
	source proto.Histogram
	name   string
	help   string
	unit   float64 // what bounds and sum are divided by, to be seconds
}

var histograms = []histogram{
	{proto.RequestTime, "scache_request_duration_seconds", "How long requests took, from the turn of the event loop that read them to its end: an upper bound.", 1e6},
	{proto.FoundAge, "scache_found_age_seconds", "How long connections had been cached when they were found.", 1000},
}

func inHistogram(statistic string) bool {
	for _, h := range histograms {
		if strings.HasPrefix(statistic, h.source.Name+"_") {
			return true
		}
	}
	return false
}

// describe is the metric's description; each has the label socket first.
func (f *family) describe() *prometheus.Desc {
	return prometheus.NewDesc(f.name, f.help, append([]string{"socket"}, f.labels...), nil)
}

func (f *family) valueType() prometheus.ValueType {
	if f.gauge {
		return prometheus.GaugeValue
	}
	return prometheus.CounterValue
}
