// Package handover is what a server tells the process that takes its place: records,
// and descriptors with them, over a UNIX-domain socket. What they mean is package
// server's business.
//
//	successor                      predecessor
//	   | takeover (package proto)       |
//	   |------------------------------->|
//	   |   Hello, Cache, Bindings, ...  |  serves meanwhile
//	   |<-------------------------------|
//	   |           Stopped              |  stops serving
//	   |<-------------------------------|
//	   |   Cache, Bindings, Client, ... |  what is new, or has changed
//	   |<-------------------------------|
//	   |             End                |
//	   |<-------------------------------|
//	   | Answer: ready                  |
//	   |------------------------------->|
//	   |              Go                |
//	   |<-------------------------------|  ends
//	   | serves
//
// Until Go is sent the predecessor can go on as if nothing had happened, and it does so if anything
// fails, or is silent for too long. From then on the successor has everything.
//
// Records are in the encoding of package gob, so a reader ignores the fields that it does
// not know, and sees a record of a kind that it does not know as an empty one; how many
// descriptors belong to that is known all the same, and they are closed.
package handover

import "time"

// Version is of the records' meaning. It grows when an older reader would lose something
// that must not be lost.
const Version = 1

// Record has one of its fields set besides Descriptors, or none if it is of a kind unknown to the
// reader.
type Record struct {
	Descriptors int // that come with it

	Hello       *Hello
	Stopped     *Stopped
	Cache       *Cache
	Bindings    []Binding
	Connections []Connection // each with a descriptor
	Client      *Client
	End         *End
	Go          *Go
}

// Batch is how many bindings or connections make a record: one by one they would take twice as
// long, and more would keep clients waiting for longer than a look-up does. It is less than one
// message can carry of descriptors (SCM_MAX_FD in the kernel). BatchText is how many bytes of text
// end one before.
const (
	Batch     = 64
	BatchText = 1 << 16
)

// Hello is the first record.
type Hello struct {
	Version int
	// Started is when the clock began, in nanoseconds of CLOCK_MONOTONIC.
	Started int64
	Through string // name of the cache through whose socket the successor came
}

// Stopped says that the predecessor serves no longer. Each cache is begun once more, with what
// has changed since it was sent: what is gone, and then bindings and connections that are
// new, or bindings with a new deadline.
type Stopped struct {
	StatisticsDue uint64 // in ticks of the server's clock, which goes on
}

// Cache begins a cache: what follows, up to the next one, is of this one. Before Stopped it has
// nothing but the name. Its descriptors are the listening sockets.
type Cache struct {
	Name     string
	Gone     []uint64         // serial numbers of bindings and connections
	Serial   uint64           // of what was saved last
	Since    time.Time        // when the counters began
	Counters map[string]int64 // by name; what the reader does not know is lost
}

// Binding is one of a cache's, in any order: its serial number tells its place in its destination.
type Binding struct {
	Destination, Property, Endpoint []byte
	Deadline, Serial                uint64
}

// Connection is one that is cached, or that a Client holds: then its descriptor is among the
// client's.
type Connection struct {
	Endpoint, Property []byte
	Deadline           uint64
	Serial             uint64
	Terms              *Terms // nil: there is no policy
}

// Terms are those of a policy, under which a connection was saved, or is being saved. They are
// comparable, and few.
type Terms struct {
	Decline bool // it is not kept
	TTL     int  // seconds, at most
	Quit    bool // say QUIT to it
	// Governed is whether Keep and Order are its endpoint's.
	Governed    bool
	Keep, Order int
}

// Client is one that is connected. Its descriptors are its socket, that of Found if there is
// one, and the one that has arrived and was not used yet if HasArrived.
type Client struct {
	Announce bool // it was not told the protocol yet
	State    int
	Input    []byte // received and not used yet
	Output   []byte // not sent yet
	Handed   int    // descriptors sent that may be unread
	Due      uint64 // when its time for the request is over

	// Of a request that is too long, and dropped up to its end.
	TooLong bool
	Op      int
	Framer  byte

	Terms *Terms // of Prepared, or of what follows a binding; nil: none
	Bound uint32 // the endpoint of that, by a hash

	TTL        int         // of Prepared, in seconds
	Prepared   *Connection // a save whose descriptor is due
	Found      *Connection // a find that the client has not acknowledged
	HasArrived bool
}

// Descriptors is how many a client has.
func (c *Client) Descriptors() int {
	n := 1
	if c.Found != nil {
		n++
	}
	if c.HasArrived {
		n++
	}
	return n
}

// End says that this was all, and how much is cached, and connected, now.
type End struct{ Bindings, Connections, Clients int }

// Go says that the successor is the server now.
type Go struct{}

// Answer is the successor's: ready to serve, or why not.
type Answer struct{ Failure string }
