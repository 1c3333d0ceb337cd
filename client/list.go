package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/scache/scache/proto"
)

// CachedConnection is an entry of Connections.
type CachedConnection struct {
	Endpoint, Property string
	Age                time.Duration // since it was saved, when the list began
	Remaining          time.Duration // until it expires
	Kind               string        // tcp, udp, unix, socket (of another kind), or file (all else)
	Remote             string        // the far end's address, if it has one
	// Uses is how often this entry was found and put back. A client that uses the connection
	// and saves it again makes a new entry: how often that was, only the clients know.
	Uses int64
}

// Binding is an entry of Bindings.
type Binding struct {
	Destination, Endpoint, Property string
	Age                             time.Duration // since it was first saved, when the list began
	Remaining                       time.Duration
}

// DestinationActivity is an entry of Destinations.
type DestinationActivity struct {
	Destination string // its first 255 bytes
	// Look-ups of late: what is older counts half for each minute or so.
	Hits, Misses float64
	Bindings     int64
	Connections  int64 // of the endpoints that it is bound to; other destinations may be, too
}

// Connections lists what is cached, in no particular order: each connection that is there all
// the time once, and none twice. A list that is not read to its end, or ends with an error, leaves the
// Client broken, but for a RefusalError or ErrStock.
func (c *Client) Connections(ctx context.Context) iter.Seq2[CachedConnection, error] {
	return list(ctx, c, proto.AdminList, []string{"connections"}, func(e *CachedConnection) map[string]any {
		return map[string]any{"connection": &e.Endpoint, "property": &e.Property, "age": &e.Age, "remaining": &e.Remaining,
			"kind": &e.Kind, "remote": &e.Remote, "uses": &e.Uses}
	})
}

// Bindings is Connections for bindings.
func (c *Client) Bindings(ctx context.Context) iter.Seq2[Binding, error] {
	return list(ctx, c, proto.AdminList, []string{"bindings"}, func(e *Binding) map[string]any {
		return map[string]any{"binding": &e.Destination, "endpoint": &e.Endpoint, "property": &e.Property,
			"age": &e.Age, "remaining": &e.Remaining}
	})
}

// Destinations lists which destinations were looked up of late, the busy ones of them:
// there is room for some hundreds.
func (c *Client) Destinations(ctx context.Context) iter.Seq2[DestinationActivity, error] {
	return list(ctx, c, proto.AdminDestinations, nil, func(e *DestinationActivity) map[string]any {
		return map[string]any{"destination": &e.Destination, "hits": &e.Hits, "misses": &e.Misses,
			"bindings": &e.Bindings, "connections": &e.Connections}
	})
}

// errStopped ends an exchange whose caller has seen enough.
var errStopped = errors.New("scache: the list was not read to its end")

// list makes a request with a long answer. fields tells where the attributes of an entry
// go; others are skipped.
func list[T any](ctx context.Context, c *Client, op proto.AdminOp, arguments []string, fields func(*T) map[string]any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		err := c.do(ctx, func() error {
			if _, err := c.conn.Write(proto.AppendAdmin(nil, op, arguments...)); err != nil {
				return err
			}
			messages := reader{client: c}
			msg, err := messages.next()
			if err == nil {
				_, err = admitted(msg)
			}
			if err != nil {
				return err
			}
			var entry, none T
			into := fields(&entry)
			for {
				msg, err := messages.next()
				if err != nil {
					return err
				}
				if len(msg) == 1 { // the empty one: the end
					return messages.end()
				}
				entry = none
				if err := attributes(msg, func(name, value string) error { return assign(into[name], value) }); err != nil {
					return err
				}
				if !yield(entry, nil) {
					return errStopped
				}
			}
		})
		if err != nil && err != errStopped {
			var none T
			yield(none, err)
		}
	}
}

// assign puts the value of an attribute where it belongs, if it does anywhere.
func assign(to any, value string) (err error) {
	var n int64
	switch to := to.(type) {
	case *string:
		*to = value
	case *int64:
		*to, err = strconv.ParseInt(value, 10, 64)
	case *float64:
		*to, err = strconv.ParseFloat(value, 64)
	case *time.Duration:
		n, err = strconv.ParseInt(value, 10, 64)
		*to = time.Duration(n) * time.Millisecond
	}
	return err
}

// reader reads messages that follow each other.
type reader struct {
	client *Client
	rest   []byte // what was read behind the last message
}

// next returns one message, a view until the next call.
func (r *reader) next() ([]byte, error) {
	var framer proto.Framer
	scanned := 0
	for {
		n, done := framer.Next(r.rest[scanned:])
		scanned += n
		if done {
			msg := r.rest[:scanned]
			r.rest = r.rest[scanned:]
			return msg, nil
		}
		if cap(r.rest)-len(r.rest) < 1<<12 {
			r.rest = append(make([]byte, 0, 2*len(r.rest)+1<<16), r.rest...)
		}
		n, err := r.client.conn.Read(r.rest[len(r.rest):cap(r.rest)])
		r.rest = r.rest[:len(r.rest)+n]
		if err != nil {
			return nil, fmt.Errorf("scache: no reply: %w", err)
		}
	}
}

// end reports that something follows the last message.
func (r *reader) end() error {
	if len(r.rest) > 0 {
		return fmt.Errorf("scache: unexpected bytes behind a reply: %q", r.rest)
	}
	return nil
}
