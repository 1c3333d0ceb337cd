package main

import (
	"math"
	"time"

	"github.com/scache/scache/client"
	"github.com/scache/scache/proto"
)

// requestTimes are how long requests took, as the daemon has measured it, in
// microseconds.
type requestTimes struct {
	buckets []client.Bucket
	sum     int64
}

func requestTimesOf(s client.Statistics) requestTimes {
	buckets, sum := s.Histogram(proto.RequestTime)
	return requestTimes{buckets, sum}
}

// since is what was measured after an earlier reading of the same server.
func (r requestTimes) since(earlier requestTimes) requestTimes {
	if len(earlier.buckets) != len(r.buckets) {
		return r
	}
	buckets := make([]client.Bucket, len(r.buckets))
	for i, b := range r.buckets {
		buckets[i] = client.Bucket{Bound: b.Bound, Count: b.Count - earlier.buckets[i].Count}
	}
	return requestTimes{buckets, r.sum - earlier.sum}
}

func (r requestTimes) count() int64 { return r.buckets[len(r.buckets)-1].Count }

// mean is in whole microseconds; 0 of no requests.
func (r requestTimes) mean() time.Duration {
	if r.count() == 0 {
		return 0
	}
	return time.Duration(r.sum/r.count()) * time.Microsecond
}

// quantile is the upper bound of the bucket that the q-th part of all requests ends
// in; beyond is true where that is the last one, which has none.
func (r requestTimes) quantile(q float64) (bound time.Duration, beyond bool) {
	rank := int64(math.Ceil(q * float64(r.count())))
	for _, b := range r.buckets {
		if b.Bound >= 0 {
			bound = time.Duration(b.Bound) * time.Microsecond
		}
		if b.Count >= rank {
			return bound, b.Bound < 0
		}
	}
	return bound, true
}

// quantileText is a quantile for people: "<= 50µs", or "> 100ms".
func (r requestTimes) quantileText(q float64) string {
	if r.count() == 0 {
		return "-"
	}
	bound, beyond := r.quantile(q)
	if beyond {
		return "> " + bound.String()
	}
	return "<= " + bound.String()
}
