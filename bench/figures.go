package main

import (
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/scache/scache/bench/agent"
)

// Sample is one round with one server. Latencies are in microseconds.
type Sample struct {
	Ops       int64   `json:"ops"`
	PerSecond float64 `json:"ops_per_second"`
	P50       figure  `json:"p50_us"`
	P99       figure  `json:"p99_us"`
	P999      figure  `json:"p999_us"`
	Max       figure  `json:"max_us"`
	CPU       figure  `json:"server_cpu_us_per_op"`
	Stalled   int     `json:"stalled_clients"`
	Unstarted int64   `json:"unstarted_ops"`
}

func newSample(r agent.Result, cpu time.Duration) Sample {
	return Sample{
		Ops:       r.InTime,
		PerSecond: float64(r.InTime) / r.Elapsed.Seconds(),
		P50:       microseconds(r.Latency, 50),
		P99:       microseconds(r.Latency, 99),
		P999:      microseconds(r.Latency, 99.9),
		Max:       microseconds(r.Latency, 100),
		CPU:       figure(float64(cpu.Nanoseconds()) / 1e3 / float64(r.InTime)),
		Stalled:   r.Stalled,
		Unstarted: r.Unstarted,
	}
}

func microseconds(h *hdrhistogram.Histogram, percentile float64) figure {
	if h.TotalCount() == 0 {
		return unknown
	}
	return figure(h.ValueAtPercentile(percentile)) / 1e3
}

// figure is a number that may be unknown: NaN, or infinite as what is divided by
// no operations. In JSON it is null then.
type figure float64

var unknown = figure(math.NaN())

func (f figure) known() bool { return !math.IsNaN(float64(f)) && !math.IsInf(float64(f), 0) }

// MarshalJSON implements json.Marshaler: JSON has no NaN.
func (f figure) MarshalJSON() ([]byte, error) {
	if !f.known() {
		return []byte("null"), nil
	}
	return appendFloat(nil, float64(f)), nil
}

// spread is what several rounds have given.
type spread struct {
	Median figure `json:"median"`
	Min    figure `json:"min"`
	Max    figure `json:"max"`
}

// spreadOf leaves out what is unknown.
func spreadOf(values []float64) spread {
	values = slices.DeleteFunc(slices.Clone(values), func(x float64) bool { return !figure(x).known() })
	if len(values) == 0 {
		return spread{unknown, unknown, unknown}
	}
	return spread{figure(median(values)), figure(slices.Min(values)), figure(slices.Max(values))}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// ratios divides round by round: what disturbs a machine for longer than a round
// disturbs both. A round in which one has done nothing does not count.
func ratios(a, b []Sample, what func(Sample) float64) spread {
	var values []float64
	for i := range min(len(a), len(b)) {
		values = append(values, what(a[i])/what(b[i]))
	}
	return spreadOf(values)
}

// What is compared.
func throughput(s Sample) float64 { return s.PerSecond }
func p50(s Sample) float64        { return float64(s.P50) }
func p99(s Sample) float64        { return float64(s.P99) }
func p999(s Sample) float64       { return float64(s.P999) }
func longest(s Sample) float64    { return float64(s.Max) }
func cpu(s Sample) float64        { return float64(s.CPU) }
