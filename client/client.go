// Package client is a client of the connection cache protocol: for delivery agents
// other than Postfix's, and for tools. It works with scache, under master(8) or as
// "scache serve", and with Postfix's own scache(8).
//
// An open connection that is not needed at the moment is saved under the name of
// its endpoint, for a limited time, together with a property: whatever text is
// needed to use it again. Any other client can then find it there. A destination
// is a name that refers to endpoints; what is found for it is a connection of one
// of them. Names and properties may be empty and hold any byte but NUL.
//
// What travels is the open connection itself, not its data: the process that
// found it goes on with the peer where the process that saved it left off. Both
// must run on the same kernel.
package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/scache/scache/proto"
)

var (
	// ErrNotFound is returned by the finds when nothing is cached.
	ErrNotFound = errors.New("scache: not found")
	// ErrRefused is returned when the server could not do what it was asked to:
	// it has no room for a descriptor or for the texts, or takes the request for malformed.
	ErrRefused = errors.New("scache: refused by the server")
	// ErrNoCache is returned by Dial when what listens at the path is no connection cache.
	ErrNoCache = errors.New("is no connection cache")
	// ErrBroken is returned by a Client that has failed in the middle of an
	// earlier request, and is of no more use; and in the loop over a list.
	ErrBroken = errors.New("scache: client is in the middle of a list, or out of step after an earlier error")
)

// Client is a connection to a cache. It must be used by one goroutine at a time. A
// request that fails on the way, as one whose context ends meanwhile, leaves the Client broken:
// close it, and dial again. One that is answered, be it by an error, does not.
type Client struct {
	conn   *net.UnixConn
	buffer []byte
	broken bool
}

// Dial connects to the cache that listens on the UNIX-domain socket at path, and
// waits for its announcement. The context limits Dial only.
func Dial(ctx context.Context, path string) (*Client, error) {
	conn, err := connect(ctx, path)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn.(*net.UnixConn)}
	err = c.do(ctx, func() error {
		announcement, err := c.receive()
		if err == nil && string(announcement) != proto.Announcement {
			err = fmt.Errorf("scache: %s %w: it says %q", path, ErrNoCache, announcement)
		}
		return err
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// connectAgain is how long to wait when the server's queue of clients is full: connect(2) would
// wait if the socket were a blocking one.
const connectAgain = 10 * time.Millisecond

// longestPath is that of a socket, in bytes: a NUL byte ends it.
const longestPath = len(syscall.RawSockaddrUnix{}.Path) - 1

func connect(ctx context.Context, path string) (net.Conn, error) {
	if len(path) > longestPath {
		return nil, fmt.Errorf("connect to %s: the path of a socket has %d bytes at most", path, longestPath)
	}
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if ctx.Err() != nil && err != nil {
			return nil, fmt.Errorf("connect to %s: %w", path, context.Cause(ctx)) // else net's own words
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(connectAgain):
		}
	}
}

// Close ends the Client. What it has saved stays in the cache.
func (c *Client) Close() error { return c.conn.Close() }

// SaveEndpoint saves an open connection under an endpoint, as its newest, for ttl:
// rounded up to whole seconds, and limited by the server. The cache gets a
// duplicate; connection stays the caller's, who usually closes it next, and must
// not use it any more. It may be a net.Conn of the kinds that are files (as
// *net.TCPConn and *net.UnixConn are; *tls.Conn is not) or an *os.File.
func (c *Client) SaveEndpoint(ctx context.Context, ttl time.Duration, endpoint, property string, connection syscall.Conn) error {
	seconds, err := wholeSeconds(ttl)
	if err = cmp.Or(err, check(endpoint, property)); err != nil {
		return err
	}
	raw, err := connection.SyscallConn()
	if err != nil {
		return err
	}
	return c.do(ctx, func() error {
		reply, err := c.exchange(proto.AppendSaveEndpoint(nil, seconds, endpoint, property))
		if err != nil {
			return err
		}
		if string(reply) != proto.DummyMessage {
			return cmp.Or(statusOfSave(reply), fmt.Errorf("scache: unexpected reply %q", reply))
		}
		if err := c.sendDescriptor(raw); err != nil {
			return err
		}
		reply, err = c.receive()
		if err != nil {
			return err
		}
		return statusOfSave(reply)
	})
}

// FindEndpoint takes the oldest connection of an endpoint out of the cache.
func (c *Client) FindEndpoint(ctx context.Context, endpoint string) (*Connection, error) {
	if err := check(endpoint); err != nil {
		return nil, err
	}
	return c.find(ctx, proto.AppendFindEndpoint(nil, endpoint), func(r proto.Reply) *Connection {
		return &Connection{EndpointProperty: string(r.Properties[0])}
	})
}

// SaveDestination lets a destination refer to an endpoint for ttl: rounded up to
// whole seconds, and limited by the server. If it does so already, with the same
// property, the time starts anew.
func (c *Client) SaveDestination(ctx context.Context, ttl time.Duration, destination, property, endpoint string) error {
	seconds, err := wholeSeconds(ttl)
	if err = cmp.Or(err, check(destination, property, endpoint)); err != nil {
		return err
	}
	return c.do(ctx, func() error {
		reply, err := c.exchange(proto.AppendSaveDestination(nil, seconds, destination, property, endpoint))
		if err != nil {
			return err
		}
		return statusOfSave(reply)
	})
}

// FindDestination takes a connection out of the cache: the oldest of the first
// endpoint, in the order in which the destination was made to refer to them, that
// has one.
func (c *Client) FindDestination(ctx context.Context, destination string) (*Connection, error) {
	if err := check(destination); err != nil {
		return nil, err
	}
	return c.find(ctx, proto.AppendFindDestination(nil, destination), func(r proto.Reply) *Connection {
		return &Connection{DestinationProperty: string(r.Properties[0]), EndpointProperty: string(r.Properties[1])}
	})
}

// Connection is what was found.
type Connection struct {
	// File is the open connection, close-on-exec. The caller owns it.
	File                *os.File
	EndpointProperty    string
	DestinationProperty string // of FindDestination only
}

// Conn returns the connection as a net.Conn, which takes the place of File: the
// caller closes what is returned. After an error File is there still.
func (c *Connection) Conn() (net.Conn, error) {
	conn, err := net.FileConn(c.File) // a duplicate
	if err != nil {
		return nil, err
	}
	c.File.Close()
	return conn, nil
}

// find is the exchange of both finds: after a hit, dummies keep both sides in step
// around the descriptor.
func (c *Client) find(ctx context.Context, request []byte, decode func(proto.Reply) *Connection) (found *Connection, err error) {
	err = c.do(ctx, func() error {
		msg, err := c.exchange(request)
		if err != nil {
			return err
		}
		if err := statusOf(msg); err != nil {
			return err
		}
		reply, _ := proto.DecodeReply(msg)
		found = decode(reply)
		if err := c.send(proto.DummyMessage); err != nil {
			return err
		}
		if found.File, err = c.receiveDescriptor(); err != nil {
			return err
		}
		if err = c.send(proto.DummyMessage); err != nil {
			found.File.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// wholeSeconds is a time to live as the protocol has it.
func wholeSeconds(ttl time.Duration) (int, error) {
	if ttl <= 0 || ttl > math.MaxInt32*time.Second {
		return 0, fmt.Errorf("scache: time to live of %v", ttl)
	}
	return int((ttl + time.Second - 1) / time.Second), nil
}

// check refuses texts that the protocol cannot carry.
func check(texts ...string) error {
	for _, text := range texts {
		if strings.IndexByte(text, 0) >= 0 {
			return fmt.Errorf("scache: a name or property holds a NUL byte: %q", text)
		}
	}
	return nil
}

// statusOf returns the error that a reply stands for.
func statusOf(msg []byte) error {
	reply, ok := proto.DecodeReply(msg)
	switch {
	case !ok:
		return fmt.Errorf("scache: unexpected reply %q", msg)
	case reply.Status == proto.OK:
		return nil
	case reply.Status == proto.Failed:
		return ErrNotFound
	}
	return ErrRefused
}

// statusOfSave is statusOf for a save, where status 2 says that there was no room, or no descriptor.
func statusOfSave(msg []byte) error {
	if err := statusOf(msg); err != ErrNotFound {
		return err
	}
	return ErrRefused
}
