package main

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/scache/scache/client"
	"github.com/scache/scache/proto"
)

// numbered are statistics in which each number is another one.
func numbered() client.Statistics {
	s := client.Statistics{Version: "1.2.3", Values: map[string]int64{}}
	for i, statistic := range proto.Statistics {
		s.Values[statistic.Name] = int64(i + 1)
	}
	return s
}

func TestMetricsAreInOrder(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector([]string{"/a", "/b", "/\xff"}, func(_ context.Context, socket string) (client.Statistics, error) {
		if socket == "/b" {
			return client.Statistics{}, errors.New("gone")
		}
		return numbered(), nil
	}))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	err = testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP scache_up Whether the cache answers.
# TYPE scache_up gauge
scache_up{socket="/a"} 1
scache_up{socket="/b"} 0
scache_up{socket="/�"} 1
# HELP scache_build_info The cache's version; the value is always 1.
# TYPE scache_build_info gauge
scache_build_info{socket="/a",version="1.2.3"} 1
scache_build_info{socket="/�",version="1.2.3"} 1
`), "scache_up", "scache_build_info")
	if err != nil {
		t.Error(err)
	}
}

// The help of a metric does not speak of another unit than its name.
func TestUnits(t *testing.T) {
	for _, f := range families() {
		if strings.HasSuffix(f.name, "_seconds") && (strings.Contains(f.help, "millisecond") || strings.Contains(f.help, "microsecond")) {
			t.Errorf("%s: %s", f.name, f.help)
		}
	}
}

// Every statistic is exported, once.
func TestEveryStatisticIsExported(t *testing.T) {
	count := map[string]int{}
	for _, f := range families() {
		for _, p := range f.parts {
			count[p.statistic]++
		}
	}
	for _, h := range histograms {
		for _, name := range h.source.Names() {
			count[name]++
		}
	}
	for _, s := range proto.Statistics {
		if count[s.Name] != 1 {
			t.Errorf("%s is in %d metrics", s.Name, count[s.Name])
		}
		delete(count, s.Name)
	}
	for name := range count {
		t.Errorf("%s is no statistic", name)
	}
}

// The reasons of status, top and exporter are all there are.
func TestEveryReasonIsKnown(t *testing.T) {
	for _, s := range proto.Statistics {
		if reason, ok := strings.CutPrefix(s.Name, "closed_"); ok && !slices.Contains(reasons, reason) {
			t.Errorf("closed_%s is not shown", reason)
		}
	}
	for _, o := range oddities {
		if !slices.ContainsFunc(proto.Statistics, func(s proto.Statistic) bool { return s.Name == o.name }) {
			t.Errorf("%s is no statistic", o.name)
		}
	}
}

// A cache that does not answer costs a scrape no longer than the time limit.
func TestHandler(t *testing.T) {
	a := &app{timeout: 50 * time.Millisecond}
	handler, err := a.metricsHandler([]string{silentSocket(t)})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/metrics": "scache_up{", "/healthz": "ok", "/": "/metrics"} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest("GET", path, nil))
		body, _ := io.ReadAll(answer.Body)
		if answer.Code != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %s", path, answer.Code, body)
		}
	}
}

// Times are in seconds, whatever the server counts in; and what an older server does not count has no metric.
func TestMetricsAreInSeconds(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector([]string{"/a"}, func(context.Context, string) (client.Statistics, error) {
		return client.Statistics{Version: "\xff", Values: map[string]int64{
			"uptime_ms": 1500, "longest_turn_us": 2500,
			"request_us_le_50": 2, "request_us_le_100": 3, "request_us_le_inf": 4, "request_us_sum": 200_250,
			"found_age_ms_le_500": 1, "found_age_ms_le_inf": 1, "found_age_ms_sum": 250,
		}}, nil
	}))
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP scache_build_info The cache's version; the value is always 1.
# TYPE scache_build_info gauge
scache_build_info{socket="/a",version="�"} 1
# HELP scache_found_age_seconds How long connections had been cached when they were found.
# TYPE scache_found_age_seconds histogram
scache_found_age_seconds_bucket{socket="/a",le="0.5"} 1
scache_found_age_seconds_bucket{socket="/a",le="+Inf"} 1
scache_found_age_seconds_sum{socket="/a"} 0.25
scache_found_age_seconds_count{socket="/a"} 1
# HELP scache_longest_turn_seconds The longest turn of the event loop since the start.
# TYPE scache_longest_turn_seconds gauge
scache_longest_turn_seconds{socket="/a"} 0.0025
# HELP scache_request_duration_seconds How long requests took, from the turn of the event loop that read them to its end: an upper bound.
# TYPE scache_request_duration_seconds histogram
scache_request_duration_seconds_bucket{socket="/a",le="5e-05"} 2
scache_request_duration_seconds_bucket{socket="/a",le="0.0001"} 3
scache_request_duration_seconds_bucket{socket="/a",le="+Inf"} 4
scache_request_duration_seconds_sum{socket="/a"} 0.20025
scache_request_duration_seconds_count{socket="/a"} 4
# HELP scache_up Whether the cache answers.
# TYPE scache_up gauge
scache_up{socket="/a"} 1
# HELP scache_uptime_seconds Time since the start of the process, or of the first one if it has taken over.
# TYPE scache_uptime_seconds gauge
scache_uptime_seconds{socket="/a"} 1.5
`)); err != nil {
		t.Error(err)
	}
}
