// Package agent plays delivery agents: thousands of clients of a connection cache,
// driven from one thread, or a few, with an epoll loop of its own. They speak the
// protocol as smtp(8) does, write by write, compare every reply byte for byte, and
// hand over real TCP connections to an SMTP sink.
//
// In the measuring loop nothing is allocated, no goroutine is switched to, and no
// system call blocks but the one that waits.
package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

// Workload is what each client does over and over.
type Workload string

const (
	// Cycle is save_endp and find_endp of the client's connection, whose greeting has
	// been read: as smtp(8) does, and to look at one with unread text costs more.
	Cycle Workload = "cycle"
	// Miss is find_endp of an endpoint that nobody has saved.
	Miss Workload = "miss"
	// Bind is save_dest of a destination that is bound already.
	Bind Workload = "bind"
	// Deliver is what smtp(8) does for a message: find_dest; on a hit RSET, on a
	// miss connect, greeting and EHLO; the message; save_dest and save_endp.
	Deliver Workload = "deliver"

	// What is there beforehand; each is done for Run.From up to Run.To.
	fillConnections Workload = "fill connections"
	fillBindings    Workload = "fill bindings"
)

// Workloads are those that can be measured.
var Workloads = []Workload{Cycle, Miss, Bind, Deliver}

// Config describes the clients.
type Config struct {
	Socket  string         // of the server
	Sink    netip.AddrPort // where their connections go
	Clients int
	Threads int // 0 is 1

	Endpoints    int     // that all clients share; 0: each client has its own
	Bound        int     // destinations that Bind refreshes; 0: each client its own
	TTL          int     // seconds
	LabelSize    int     // bytes
	PropertySize int     // bytes
	MessageSize  int     // bytes of a mail's body
	Hit          float64 // Deliver: the share of connections that is saved, and so found
	Fresh        bool    // Cycle: close what comes back, and save a new connection
	Glue         bool    // send the dummy that ends a find with the next request
	Verify       bool    // look whether the connection that comes back is the one saved
	Seed         uint64
	CPUs         *unix.CPUSet // where the threads run; nil: anywhere
}

// Check says what is wrong with a Config.
func (c *Config) Check() error {
	switch {
	case c.Clients < 1:
		return errors.New("there must be a client")
	case c.LabelSize < MinLabel || c.LabelSize > MaxText:
		return fmt.Errorf("labels must have %d to %d bytes", MinLabel, MaxText)
	case c.PropertySize < 0 || c.PropertySize > MaxText:
		return fmt.Errorf("properties must have up to %d bytes", MaxText)
	case !(c.Hit >= 0 && c.Hit <= 1): // nor NaN
		return errors.New("the hit ratio must be 0 to 1")
	case c.Verify && c.Endpoints > 0:
		return errors.New("only what a client finds under an endpoint of its own can be verified")
	}
	return nil
}

// Run is one measurement.
type Run struct {
	Workload Workload
	// WarmUp comes before Duration, and is not measured. The clients go on
	// without a pause, so that what is measured is a steady state; it should be
	// longer than an operation takes.
	WarmUp   time.Duration
	Duration time.Duration
	// Rate is how many operations are begun a second, by all clients together.
	// They are due at fixed times, and their latency counts from then, whether or
	// not a client was free: a server that stalls cannot make itself look well by
	// holding up those who would measure it. 0 is a closed loop: each client
	// begins as soon as it has finished.
	Rate float64
	// Grace is how long to wait for what is unfinished after Duration.
	Grace time.Duration
	// Edge is called when Duration begins and when it ends; may be nil.
	Edge func()

	from, to int // fills, instead of Duration
}

// Result is what came of a Run.
type Result struct {
	Ops     int64         // finished at all, in the warm-up too
	InTime  int64         // finished within Elapsed
	Elapsed time.Duration // Run.Duration, or what a fill took
	// Latency holds nanoseconds of those that finished after the warm-up. The
	// stalled ones count as long as they were watched.
	Latency   *hdrhistogram.Histogram
	Stalled   int   // clients that had no answer within the grace
	Unstarted int64 // operations at a fixed rate for which no client was ever free
}

// Counts are a Fleet's connections to the sink, and must add up: Opened + Returned =
// Handed + Closed + Held.
type Counts struct {
	Opened    int64
	Handed    int64 // to the server
	Returned  int64 // by the server
	Closed    int64
	Held      int64 // at the moment
	Delivered int64 // messages
}

// Fleet is a number of connected clients.
type Fleet struct {
	config  Config
	threads []*thread
	stopped []int
	done    atomic.Int64
}

var (
	errClosed = errors.New("the other end has closed the connection")
	errSilent = errors.New("no answer in ten seconds")
)

// Connect connects the clients and reads the announcements.
func Connect(ctx context.Context, config Config) (*Fleet, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	f := &Fleet{config: config}
	config.Threads = min(max(config.Threads, 1), config.Clients)
	for i := range config.Threads {
		t, err := newThread(ctx, f, config, i)
		if err != nil {
			f.Close()
			return nil, err
		}
		f.threads = append(f.threads, t)
	}
	return f, nil
}

// connect connects one client.
func connect(socket string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("a client's socket: %w (see ulimit -Hn)", err)
	}
	// Blocks while the listen queue is full, but not for ever.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 10})
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
	}
	if err == unix.EAGAIN {
		err = errSilent
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to the server: %w", err)
	}
	return fd, nil
}

func readAnnouncement(fd int) error {
	return readGreeting(fd, proto.Announcement)
}

// readGreeting waits for what the other end says first, and that must be want.
func readGreeting(fd int, want string) error {
	got := make([]byte, len(want)+1)
	err := awaitReadable(fd)
	if err != nil {
		return fmt.Errorf("waiting for %q: %w", want, err)
	}
	n, err := unix.Read(fd, got)
	if err == nil && string(got[:n]) != want {
		err = fmt.Errorf("got %q, want %q", got[:n], want)
	}
	return err
}

// Stop adds clients that stop in the middle of a request, until the next Run is
// over.
func (f *Fleet) Stop(n int) error {
	for range n {
		fd, err := connect(f.config.Socket)
		if err != nil {
			return err
		}
		f.stopped = append(f.stopped, fd)
		if err := readAnnouncement(fd); err != nil {
			return err
		}
	}
	for _, fd := range f.stopped {
		if _, err := unix.Write(fd, []byte("request\x00find_endp\x00lab")); err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	return awaitRead(f.stopped[0]) // the others too, but by a server that has stopped at the first
}

// awaitRead returns when the other end has read all that was written to a socket.
func awaitRead(fd int) error {
	for deadline := time.Now().Add(drainLimit); ; time.Sleep(time.Millisecond) {
		unread, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		switch {
		case err != nil:
			return fmt.Errorf("SIOCOUTQ: %w", err)
		case unread == 0:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("the server does not read what a client has sent")
		}
	}
}

func (f *Fleet) resume() {
	for _, fd := range f.stopped {
		unix.Close(fd)
	}
	f.stopped = nil
}

// drainLimit is how long to wait for a server that answers again after a stall.
const drainLimit = 60 * time.Second

// Run makes the clients do a workload. Afterwards they are all idle.
func (f *Fleet) Run(ctx context.Context, run Run) (Result, error) {
	result := Result{Latency: newHistogram()}
	err := f.each(func(t *thread) error { return t.measure(ctx, run) })
	stalled := 0
	for _, t := range f.threads {
		stalled += t.busy
	}
	f.resume()
	if err == nil && stalled > 0 {
		err = f.each(func(t *thread) error { return t.drain(ctx, drainLimit) })
	}
	for _, t := range f.threads {
		result.Ops += t.result.Ops
		result.InTime += t.result.InTime
		result.Unstarted += t.result.Unstarted
		result.Elapsed = max(result.Elapsed, t.result.Elapsed)
		result.Latency.Merge(t.result.Latency)
	}
	result.Stalled = stalled
	return result, err
}

// each calls do for every thread, on a thread of the system that ends with it.
func (f *Fleet) each(do func(*thread) error) error {
	errs := make([]error, len(f.threads))
	var all sync.WaitGroup
	for i, t := range f.threads {
		all.Go(func() {
			runtime.LockOSThread()
			// Else what is due at a fixed rate begins 50 us late, for which the server would pay. Cannot fail.
			_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
			if f.config.CPUs != nil {
				// Where that cannot be, it is as fast as it can.
				_ = unix.SchedSetaffinity(0, f.config.CPUs)
			}
			errs[i] = do(t)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Cache saves connections number from up to to: under the shared endpoints, where they
// will be found, or each under one of its own. It stops early, without an error, when
// the context's deadline is over.
func (f *Fleet) Cache(ctx context.Context, from, to int) (Result, error) {
	return f.Run(ctx, Run{Workload: fillConnections, Grace: drainLimit, from: from, to: to})
}

// Bind binds destinations number from up to to, as Cache saves connections.
func (f *Fleet) Bind(ctx context.Context, from, to int) (Result, error) {
	return f.Run(ctx, Run{Workload: fillBindings, Grace: drainLimit, from: from, to: to})
}

// Hold opens the connections that clients have before they begin to cycle, so that
// this is no part of what is measured.
func (f *Fleet) Hold() error {
	return f.each((*thread).hold)
}

// Counts counts all that has happened so far. It must not be called during a Run.
func (f *Fleet) Counts() (sum Counts) {
	for _, t := range f.threads {
		sum.Opened += t.counts.Opened
		sum.Handed += t.counts.Handed
		sum.Returned += t.counts.Returned
		sum.Closed += t.counts.Closed
		sum.Delivered += t.counts.Delivered
		for i := range t.clients {
			if t.clients[i].held >= 0 {
				sum.Held++
			}
		}
	}
	return sum
}

// Done is how many operations all Runs have finished so far; for progress.
func (f *Fleet) Done() int64 { return f.done.Load() }

// Close disconnects the clients and closes the connections that they hold.
func (f *Fleet) Close() {
	f.resume()
	for _, t := range f.threads {
		t.close()
	}
	f.threads = nil
}

// longestLatency is for all that takes longer, too.
const longestLatency = int64(10 * time.Minute)

// newHistogram tells latencies from a microsecond up to three digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), longestLatency, 3)
}
