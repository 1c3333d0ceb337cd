package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/client"
	"github.com/scache/scache/proto"
)

func TestStatistics(t *testing.T) {
	c, ctx := dial(t), t.Context()
	before, err := c.Statistics(ctx)
	if err != nil || before.Version == "" || before.Cache != socket {
		t.Fatalf("%+v, %v", before, err)
	}
	conn := dialReceiver()
	defer conn.Close()
	if err := c.SaveEndpoint(ctx, time.Minute, "statistics", "", conn); err != nil {
		t.Fatal(err)
	}
	found, err := c.FindEndpoint(ctx, "statistics")
	if err != nil {
		t.Fatal(err)
	}
	found.File.Close()
	after, err := c.Statistics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string]int64{"connections_saved": 1, "endpoint_hits": 1, "endpoint_misses": 0, "closed_taken": 1, "admin_requests": 1, "requests": 3} {
		if after.Values[name] != before.Values[name]+more {
			t.Errorf("%s rose from %d to %d, want %d more", name, before.Values[name], after.Values[name], more)
		}
	}
	for _, s := range proto.Statistics {
		if _, there := after.Values[s.Name]; !there {
			t.Errorf("there is no %s", s.Name)
		}
		if !s.Gauge && after.Values[s.Name] < before.Values[s.Name] {
			t.Errorf("%s fell", s.Name)
		}
	}
	buckets, sum := after.Histogram(proto.RequestTime)
	if len(buckets) != len(proto.RequestTime.Bounds)+1 || sum <= 0 {
		t.Fatalf("%v, sum %d", buckets, sum)
	}
	for i, bucket := range buckets[:len(buckets)-1] {
		if bucket.Bound != proto.RequestTime.Bounds[i] || bucket.Count > buckets[i+1].Count {
			t.Errorf("bucket %d of %v", i, buckets)
		}
	}
	// The turn of this very request is not over when it is answered.
	if all := buckets[len(buckets)-1].Count; all < before.Values["requests"] || all >= after.Values["requests"] {
		t.Errorf("%d of %d requests are in the histogram", all, after.Values["requests"])
	}
}

// A list longer than any buffer, with entries as long as they can be.
func TestLists(t *testing.T) {
	c, ctx := dial(t), t.Context()
	const many = 3000
	long := strings.Repeat("x", 1<<20)
	for i := range many {
		if err := c.SaveDestination(ctx, time.Minute, fmt.Sprint("list", i), "", "list"); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SaveDestination(ctx, time.Minute, "list long", long, "list"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for b, err := range c.Bindings(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if b.Endpoint == "list" {
			seen[b.Destination]++
		}
		if b.Destination == "list long" && b.Property != long {
			t.Error("the long property came back different")
		}
	}
	if len(seen) != many+1 {
		t.Errorf("%d bindings, want %d", len(seen), many+1)
	}
	connections, bindings, err := c.Flush(ctx, client.Pattern, "list*")
	if connections != 0 || bindings != many+1 || err != nil {
		t.Errorf("flushed %d, %d, %v", connections, bindings, err)
	}
	for b := range c.Bindings(ctx) {
		if b.Endpoint == "list" {
			t.Fatalf("%q is left", b.Destination)
		}
	}
}

// Entries say how old they are, and how long they stay.
func TestListedTimes(t *testing.T) {
	c, ctx := dial(t), t.Context()
	conn := dialReceiver()
	defer conn.Close()
	const ttl, slept = 50 * time.Second, 5 * time.Millisecond
	name := fmt.Sprint("times ", time.Now().UnixNano()) // not saved before
	if err := c.SaveDestination(ctx, ttl, name, "", name); err != nil {
		t.Fatal(err)
	}
	if err := c.SaveEndpoint(ctx, ttl, name, "", conn); err != nil {
		t.Fatal(err)
	}
	time.Sleep(slept)
	entries := 0
	check := func(age, remaining time.Duration) {
		t.Helper()
		entries++
		// Both are in whole milliseconds.
		if all := age + remaining; age < slept-time.Millisecond || remaining <= 0 || all < ttl || all > ttl+time.Second {
			t.Errorf("%v old, %v remain", age, remaining)
		}
	}
	for e, err := range c.Connections(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Endpoint == name {
			check(e.Age, e.Remaining)
		}
	}
	for e, err := range c.Bindings(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Destination == name {
			check(e.Age, e.Remaining)
		}
	}
	if entries != 2 {
		t.Errorf("%d entries, want 2", entries)
	}
}

// Who does not read a list to its end cannot use the Client any more.
func TestListIsBrokenOff(t *testing.T) {
	c, ctx := dial(t), t.Context()
	for i := range 2 {
		if err := c.SaveDestination(ctx, time.Minute, fmt.Sprint("broken off", i), "", ""); err != nil {
			t.Fatal(err)
		}
	}
	for range c.Bindings(ctx) {
		break
	}
	if _, err := c.Statistics(ctx); err != client.ErrBroken {
		t.Errorf("%v, want ErrBroken", err)
	}
	enough := errors.New("enough")
	cancelled, cancel := context.WithCancelCause(ctx)
	cancel(enough)
	for _, err := range dial(t).Connections(cancelled) {
		if !errors.Is(err, enough) {
			t.Errorf("%v, want the context's cause", err)
		}
	}
}

func TestRefusal(t *testing.T) {
	c, ctx := dial(t), t.Context()
	var refusal *client.RefusalError
	if _, err := c.SetLimit(ctx, "connection_cache_size_limit", -1); !errors.As(err, &refusal) || refusal.NotAllowed || errors.Is(err, client.ErrNotAllowed) {
		t.Errorf("%v, want a refusal", err)
	}
	if _, _, err := c.Flush(ctx, client.Endpoint, "a\x00b"); err == nil || err == client.ErrStock || errors.As(err, &refusal) {
		t.Errorf("a NUL byte passes: %v", err)
	}
	limits, err := c.Limits(ctx)
	if err != nil || len(limits) != 7 || limits[0] != (client.Limit{Name: "connection_cache_ttl_limit", Value: 60}) {
		t.Errorf("%v, %v", limits, err)
	}
}
