package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/scache/scache/proto"
)

// Admin requests see and steer a cache. The server obeys root and the user that it runs
// as itself, and knows them by the credentials with which the Client was dialled. A request
// concerns the cache that listens on the socket, also if the process has others.
//
// A RefusalError and ErrStock leave the Client as usable as it was.
var (
	// ErrNotAllowed is what a RefusalError is when the user may make no admin requests.
	ErrNotAllowed = errors.New("scache: not allowed")
	// ErrStock is returned when the server knows no such request: it is Postfix's own
	// scache(8), or an older one than this Client.
	ErrStock = errors.New("scache: the server knows no such admin request")
)

// RefusalError is why the server did not obey an admin request.
type RefusalError struct {
	Reason     string // in words
	NotAllowed bool   // the user may make no admin requests; else an argument makes no sense
}

func (e *RefusalError) Error() string { return "scache: " + e.Reason }

// Is implements errors.Is.
func (e *RefusalError) Is(target error) bool { return e.NotAllowed && target == ErrNotAllowed }

// Statistics are what a cache has counted. The names and their meaning are those of
// proto.Statistics; a server may be older and lack some, or newer and have others.
type Statistics struct {
	Version string // the server's
	Cache   string // the path of its socket; empty under master(8)
	Values  map[string]int64
}

// Bucket is how many values of a histogram are Bound at most; Bound is negative for the last
// one, which counts all.
type Bucket struct{ Bound, Count int64 }

// Histogram returns the buckets and the sum of proto.FoundAge or proto.RequestTime, as the
// server has them.
func (s Statistics) Histogram(h proto.Histogram) (buckets []Bucket, sum int64) {
	for name, count := range s.Values {
		text, ok := strings.CutPrefix(name, h.Name+"_le_")
		if bound, err := strconv.ParseInt(text, 10, 64); ok && err == nil {
			buckets = append(buckets, Bucket{bound, count})
		}
	}
	slices.SortFunc(buckets, func(a, b Bucket) int { return int(a.Bound - b.Bound) })
	return append(buckets, Bucket{-1, s.Values[h.Name+"_le_inf"]}), s.Values[h.Name+"_sum"]
}

// Statistics asks for what the cache has counted since its start.
func (c *Client) Statistics(ctx context.Context) (s Statistics, err error) {
	s.Values = map[string]int64{}
	err = c.ask(ctx, proto.AdminStatistics, nil, func(name, value string) error {
		switch name {
		case "version":
			s.Version = value
		case "cache":
			s.Cache = value
		default:
			return number(name, value, s.Values)
		}
		return nil
	})
	return s, err
}

// What there is to flush.
const (
	All         = "all"         // everything; the value is ignored
	Endpoint    = "endpoint"    // the connections of the endpoint with exactly that label
	Destination = "destination" // the bindings of the destination with exactly that label, and the connections of their endpoints
	Pattern     = "pattern"     // connections whose endpoint, and bindings whose destination or endpoint matches
)

// Flush drops what is cached, and returns how much that was. It drops what was there when
// it began. A connection that a client has found and not taken yet is the client's; if it
// is put back it may stay. In a Pattern * is any bytes, also none, and ? any one; it may
// have 1024 bytes, and labels of more match none. A Flush whose ctx ends goes on in the cache.
func (c *Client) Flush(ctx context.Context, what, value string) (connections, bindings int64, err error) {
	values := map[string]int64{}
	err = c.ask(ctx, proto.AdminFlush, []string{what, value}, func(name, value string) error { return number(name, value, values) })
	return values["connections"], values["bindings"], err
}

// Pause lets the cache find nothing and keep nothing that is saved, until Resume. To clients
// all is as if nothing was ever cached. What is in the cache goes on expiring.
func (c *Client) Pause(ctx context.Context) error { return c.ask(ctx, proto.AdminPause, nil, ignore) }

// Resume ends a Pause.
func (c *Client) Resume(ctx context.Context) error { return c.ask(ctx, proto.AdminResume, nil, ignore) }

func ignore(string, string) error { return nil }

// Limit is a bound of the cache, by the name of the parameter of main.cf that it has at
// the start.
type Limit struct {
	Name  string // connection_cache_size_limit and others
	Value int64  // connection_cache_ttl_limit in seconds
}

// IsTime reports whether the limit is a time, in seconds, and not a number or a size.
func (l Limit) IsTime() bool { return strings.HasSuffix(l.Name, "_ttl_limit") }

// Limits returns the limits in force.
func (c *Client) Limits(ctx context.Context) ([]Limit, error) {
	return c.limits(ctx, proto.AdminLimits)
}

// SetLimit changes a limit until the server ends, and returns all of them. What a lower one
// leaves no room for is dropped in the next moments.
func (c *Client) SetLimit(ctx context.Context, name string, value int64) ([]Limit, error) {
	return c.limits(ctx, proto.AdminSetLimit, name, strconv.FormatInt(value, 10))
}

func (c *Client) limits(ctx context.Context, op proto.AdminOp, arguments ...string) (limits []Limit, err error) {
	err = c.ask(ctx, op, arguments, func(name, value string) error {
		n, err := strconv.ParseInt(value, 10, 64)
		limits = append(limits, Limit{name, n})
		return err
	})
	return limits, err
}

// ask makes a request that is answered by one message, and gives its attributes to a
// function.
func (c *Client) ask(ctx context.Context, op proto.AdminOp, arguments []string, attribute func(name, value string) error) error {
	if err := check(arguments...); err != nil {
		return err
	}
	return c.do(ctx, func() error {
		msg, err := c.exchange(proto.AppendAdmin(nil, op, arguments...))
		if err != nil {
			return err
		}
		rest, err := admitted(msg)
		if err != nil {
			return err
		}
		return attributes(rest, attribute)
	})
}

// admitted returns what follows the status in a reply to an admin request, or the error
// that it stands for.
func admitted(msg []byte) (rest []byte, err error) {
	status, rest, ok := proto.DecodeStatus(msg)
	switch {
	case !ok:
		return nil, fmt.Errorf("scache: unexpected reply %q", msg)
	case status == proto.OK:
		return rest, nil
	case status == proto.Bad:
		return nil, ErrStock
	}
	reason, _ := proto.DecodeRefusal(msg)
	return nil, &RefusalError{Reason: reason, NotAllowed: status == proto.Denied}
}

// attributes gives the rest of a message to a function, attribute by attribute.
func attributes(rest []byte, f func(name, value string) error) error {
	for {
		name, value, next, ok := proto.Attribute(rest)
		if !ok {
			return nil
		}
		if err := f(string(name), string(value)); err != nil {
			return err
		}
		rest = next
	}
}

func number(name, value string, into map[string]int64) (err error) {
	into[name], err = strconv.ParseInt(value, 10, 64)
	return err
}
