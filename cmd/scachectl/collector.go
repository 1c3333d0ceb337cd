package main

import (
	"context"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scache/scache/client"
)

// collector asks caches for their statistics when Prometheus asks for metrics. A
// cache that does not answer in time has scache_up 0 and nothing else.
type collector struct {
	sockets []string
	// ask fetches the statistics of the cache at a socket, in bounded time.
	ask func(ctx context.Context, socket string) (client.Statistics, error)

	families     []family
	descriptions []*prometheus.Desc // of the families, in their order
}

var (
	upDesc    = prometheus.NewDesc("scache_up", "Whether the cache answers.", []string{"socket"}, nil)
	buildDesc = prometheus.NewDesc("scache_build_info", "The cache's version; the value is always 1.", []string{"socket", "version"}, nil)
)

func newCollector(sockets []string, ask func(context.Context, string) (client.Statistics, error)) *collector {
	c := &collector{sockets: sockets, ask: ask, families: families()}
	for _, f := range c.families {
		c.descriptions = append(c.descriptions, f.describe())
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- upDesc
	descriptions <- buildDesc
	for _, d := range c.descriptions {
		descriptions <- d
	}
	for _, h := range histograms {
		descriptions <- h.describe()
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	var asking sync.WaitGroup
	for _, socket := range c.sockets {
		asking.Go(func() { c.collect(socket, metrics) })
	}
	asking.Wait()
}

func (c *collector) collect(socket string, metrics chan<- prometheus.Metric) {
	s, err := c.ask(context.Background(), socket)
	socket = strings.ToValidUTF8(socket, "\uFFFD") // a label has to be that
	if err != nil {
		metrics <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, 0, socket)
		return
	}
	metrics <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, 1, socket)
	metrics <- prometheus.MustNewConstMetric(buildDesc, prometheus.GaugeValue, 1, socket, strings.ToValidUTF8(s.Version, "\uFFFD"))
	for i, f := range c.families {
		for _, p := range f.parts {
			// An older server may not count everything.
			if value, ok := s.Values[p.statistic]; ok {
				metrics <- prometheus.MustNewConstMetric(c.descriptions[i], f.valueType(), float64(value)/f.unit, append([]string{socket}, p.values...)...)
			}
		}
	}
	for _, h := range histograms {
		metrics <- h.metric(s, socket)
	}
}

func (h histogram) describe() *prometheus.Desc {
	return prometheus.NewDesc(h.name, h.help, []string{"socket"}, nil)
}

func (h histogram) metric(s client.Statistics, socket string) prometheus.Metric {
	counted, sum := s.Histogram(h.source)
	buckets := map[float64]uint64{}
	var count uint64
	for _, b := range counted {
		if b.Bound < 0 {
			count = uint64(b.Count)
		} else {
			buckets[float64(b.Bound)/h.unit] = uint64(b.Count)
		}
	}
	return prometheus.MustNewConstHistogram(h.describe(), count, float64(sum)/h.unit, buckets, socket)
}
