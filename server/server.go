// Package server is the connection cache server: one goroutine that owns every
// client, every cached descriptor and all timers.
//
// The way of a request: [Server.Run] -> loop.Dispatch -> conn.Ready -> session.step
// -> store; and back: session.out -> conn.flush.
package server

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/wire"
	"github.com/scache/scache/loop"
	"github.com/scache/scache/policy"
	"github.com/scache/scache/store"
	"github.com/scache/scache/timerwheel"
)

// Config is what a server needs to know. The durations are those of the
// parameters in the manual page scache(8).
type Config struct {
	Log     Logger
	Verbose bool   // log clients and requests
	Mistake error  // in the configuration, or nil: then the caches are paused, until the process ends
	Version string // for admin requests

	TTLLimit         time.Duration // connection_cache_ttl_limit, whole seconds, at least 1
	StatusUpdateTime time.Duration // connection_cache_status_update_time
	IPCTimeout       time.Duration // ipc_timeout: how long a client may stop in mid-request
	MaxIdle          time.Duration // max_idle: stop when there was no client for so long; 0 is never

	// Limits bound the cache: connection_cache_size_limit and others. Connections
	// are bounded by the descriptor limit as well.
	Limits store.Limits
	// ClientMemory is connection_cache_client_memory_limit: the bytes of unfinished
	// requests and unread replies; 0 is no limit.
	ClientMemory int
	Order        store.Order // connection_cache_reuse_order
	Quit         bool        // connection_cache_close_handshake: say QUIT to what leaves the cache
	// Policy is connection_cache_policy_file, which the server uses alone from now on; nil is
	// none. What its rules say goes before Limits.PerEndpoint, Order and Quit.
	Policy *policy.Policy

	// Parent is a descriptor, not owned, whose hang-up tells the server to stop:
	// master(8)'s end of the status channel. -1 is none.
	Parent int
	// FirstClient is called once, when the first client is accepted; may be nil.
	FirstClient func()
	// HandOver is whether a client of the same user may take over from us, see TakeOver.
	HandOver bool
	// Succeeded is called when one has, with its process ID (0 if it cannot be seen from here);
	// may be nil.
	Succeeded func(pid int)
	// Watchdog is told when a turn begins and ends; nil: there is none.
	Watchdog Watchdog
	// Beat is told how the server does: some seconds after that has changed, when the server
	// begins to stop, and each Heartbeat in any case, unless that is 0. It is called
	// by the loop, so that it is not when the loop hangs, and must not block; may be nil.
	Beat      func(Status)
	Heartbeat time.Duration
}

// Watchdog barks when the server is busy for too long.
type Watchdog interface {
	Busy()
	Idle()
}

type unwatched struct{}

func (unwatched) Busy() {}
func (unwatched) Idle() {}

// Server is a connection cache. All methods but Stop and Introduce belong to one goroutine.
type Server struct {
	config      Config
	loop        *loop.Loop
	clock       clock
	caches      []*cache
	judge       *judge // nil: there is no policy
	wire        wire.Wire
	descriptors descriptors
	farewell    farewell
	base        int // descriptors open at the start
	room        int // connections in all that the limit of descriptors allows
	held        int // bytes kept for clients
	started     time.Time
	elapsed     time.Duration // since started, at the beginning of this turn
	turns       int
	longestTurn time.Duration
	worked      time.Duration // since it last yielded

	listeners []*listener
	inherited []int // listening sockets that are ours, from the server before
	added     []string
	clients   map[*conn]struct{}
	served    bool // there has been a client
	adopted   bool // Adopt was called

	timers  timerwheel.Wheel[timed] // for all but the store
	report  timer                   // of statistics
	idle    timer
	grace   timer // limits stopping
	beats   beats
	later   *recall // clients that wait for what no event tells of
	errands errands

	wake       int // eventfd: written when one of these two has changed
	stopAsked  atomic.Bool
	introduced chan int

	stopping  bool
	cleared   bool // nothing is cached any longer, all clients are gone
	stopped   bool // without waiting any longer
	succeeded bool // another process has everything

	successors []*conn   // clients that ask to be our successor
	transfer   *transfer // to one of them; or nil

	// Shared by all clients, one at a time.
	received [readSize]byte
	replies  []byte
}

// timed is what the server's timers time.
type timed interface{ due() }

// timer calls a function when it is due.
type timer struct {
	timerwheel.Timer[timed]
	call func()
}

func (t *timer) due() { t.call() }

// Cache is one of the caches that a server keeps apart: what is saved through its
// sockets is found through its sockets only. The limits of the Config are each one's, but
// for that of client memory.
type Cache struct {
	Name      string // in the log, if there are several
	Listeners []int  // listening sockets, made non-blocking; they stay the caller's, but are closed when another process takes over
}

// New returns a server for the clients of one or more caches.
func New(config Config, caches ...Cache) (*Server, error) {
	l, err := loop.New()
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if config.Watchdog == nil {
		config.Watchdog = unwatched{}
	}
	s := &Server{
		config:  config,
		loop:    l,
		wake:    wake,
		started: time.Now(),
		clients: make(map[*conn]struct{}),

		introduced: make(chan int, 1),
	}
	s.farewell = farewell{server: s, lingering: make(map[*lingering]struct{})}
	s.judge = newJudge(&s.config)
	s.report.call = s.reportStatistics
	s.idle.call = s.beginStop
	s.grace.call = s.loseGrace
	s.later = newRecall(s, callLaterPause, (*conn).waitedEnough)
	s.errands = newErrands(s)
	// Go's runtime opens its own epoll instance at the first such timer. At the
	// descriptor limit it would fail to, and end the process.
	time.AfterFunc(time.Hour, func() {}).Stop()
	if err := s.register(caches); err != nil {
		unix.Close(wake)
		l.Close()
		return nil, err
	}
	s.descriptors.count()
	s.base = s.descriptors.open
	s.adaptToLimit()
	if wanted := config.Limits.Connections; wanted > s.room {
		config.Log.Warningf("connection_cache_size_limit is %d, but the limit of open files allows for %d", wanted, s.room)
	}
	s.set(&s.report, config.StatusUpdateTime)
	s.watchIdleness()
	s.startBeats()
	return s, nil
}

func (s *Server) register(caches []Cache) error {
	for _, c := range caches {
		cache := s.newCache(c.Name)
		s.caches = append(s.caches, cache)
		for _, fd := range c.Listeners {
			if err := s.listen(cache, fd); err != nil {
				return err
			}
		}
	}
	if s.config.Parent >= 0 {
		if err := s.loop.Add(s.config.Parent, parent{s}); err != nil {
			return fmt.Errorf("status channel %d: %w", s.config.Parent, err)
		}
	}
	return s.loop.Add(s.wake, waker{s})
}

func (s *Server) listen(c *cache, fd int) error {
	l := &listener{server: s, cache: c, fd: fd}
	ignoreSenders(fd)
	if err := errors.Join(unix.SetNonblock(fd, true), s.loop.Add(fd, l)); err != nil {
		return fmt.Errorf("listening socket %d: %w", fd, err)
	}
	s.listeners = append(s.listeners, l)
	return nil
}

func (s *Server) newCache(name string) *cache {
	log := namedLog{s, name}
	c := &cache{
		clock:    &s.clock,
		name:     name,
		close:    s.descriptors.close,
		drop:     s.descriptors.drop,
		culprit:  culprit,
		judge:    s.judge,
		ttlLimit: int(s.config.TTLLimit / time.Second),

		handsOver: s.config.HandOver,

		log:      log,
		verbose:  s.config.Verbose,
		mistake:  s.config.Mistake,
		paused:   s.config.Mistake != nil,
		stats:    statistics{since: time.Now()},
		counters: newCounters(),
		activity: newActivity(),
		faults:   faults{log: log},

		limits:       s.config.Limits,
		room:         &s.room,
		clientMemory: &s.config.ClientMemory,

		administrator: administrator,
		describe:      describe,
		process:       s.figures,
	}
	c.watch = newWatch(s, c)
	c.store = store.New(func(fd int, why store.Reason) { s.dismiss(c, fd, why) })
	c.store.Order = s.config.Order
	return c
}

// yieldAfter is how long the loop works before it lets other goroutines run of its own accord. After
// 10 ms the Go runtime would make it: its monitor takes the processor away in the middle of a
// turn, and watches hundreds of times a second from then on, for 1 to 2 % of all time.
const yieldAfter = 4 * time.Millisecond

// Run serves until Stop is called, the parent hangs up, or there was no client for
// max_idle. Then it closes all clients and cached connections, and reports its
// statistics. When another process has taken over, which then has all of these, it returns
// ErrSucceeded. It can be called once.
func (s *Server) Run() error {
	defer s.finish()
	s.judge.announce(s.config.Log, s.config.TTLLimit)
	for !s.stopped {
		if err := s.loop.Wait(s.sleep()); err != nil {
			return err
		}
		s.config.Watchdog.Busy()
		s.readClock()
		s.expire() // first, so that nothing due is handed out below
		s.loop.Dispatch()
		s.continueSuccessions()
		s.farewell.closeSome()
		s.continueLowering()
		if s.stopping {
			s.continueStop()
		}
		s.noticeChange()
		s.errands.goOn()
		s.endTurn()
		s.config.Watchdog.Idle()
		if s.worked >= yieldAfter {
			s.worked = 0
			runtime.Gosched()
		}
	}
	if s.succeeded {
		return ErrSucceeded
	}
	return nil
}

// Stop makes Run return. It may be called from any goroutine, and again.
func (s *Server) Stop() {
	s.stopAsked.Store(true)
	s.rouse()
}

// Introduce serves a client of the first cache that is connected already, as if it had been
// accepted. It may be called from any goroutine. The server owns fd from now on, which must be
// non-blocking.
func (s *Server) Introduce(fd int) {
	s.introduced <- fd
	s.rouse()
}

// rouse makes the loop look at what other goroutines want.
func (s *Server) rouse() {
	one := [8]byte{7: 1} // any number but zero will do, in any byte order
	// Cannot fail but for a counter that is full: then it has not been read yet, and will be.
	_, _ = unix.Write(s.wake, one[:])
}

// Adopt serves a client of the first cache that is connected already; the server owns fd from
// now on. It gets no announcement. The server stops when its last client leaves.
func (s *Server) Adopt(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("client %d: %w", fd, err)
	}
	c := newConn(s, s.caches[0], fd)
	s.adopted = true
	s.descriptors.open++
	return s.admit(c)
}

// readClock sets the time of this turn; nothing that expires looks at another one.
func (s *Server) readClock() {
	s.elapsed = s.sinceStart()
	s.clock.now = timerwheel.Tick(s.elapsed / tick)
}

func (s *Server) sinceStart() time.Duration { return time.Since(s.started) }

func (s *Server) expire() {
	for _, c := range s.caches {
		c.store.Advance(c.now)
	}
	s.timers.Advance(s.clock.now)
	for t, ok := s.timers.Expired(); ok; t, ok = s.timers.Expired() {
		t.due()
	}
}

// sleep returns how long nothing is due.
func (s *Server) sleep() time.Duration {
	if s.farewell.waiting() {
		return 0
	}
	next, _ := s.timers.Next() // there is one: statistics are due some time, and so is the end of the time for stopping
	for _, c := range s.caches {
		if c.lowering != nil {
			return 0
		}
		if stored, any := c.store.Next(); any {
			next = min(next, stored)
		}
	}
	return max(0, time.Duration(next)*tick-s.elapsed)
}

// endTurn counts a turn and the requests in it. They are not timed one by one, which would take a
// reading of the clock each: all of a turn count as long as the turn took.
func (s *Server) endTurn() {
	took := s.sinceStart() - s.elapsed
	s.turns++
	s.longestTurn = max(s.longestTurn, took)
	s.worked += took
	for _, c := range s.caches {
		if n := c.counters.requests - c.counters.timed; n > 0 {
			c.counters.timed += n
			c.counters.requestTime.count(took.Microseconds(), n)
		}
	}
}

func (s *Server) set(t *timer, after time.Duration) {
	s.timers.Set(&t.Timer, t, s.clock.after(after))
}

func (s *Server) reportStatistics() {
	for _, c := range s.caches {
		c.reportStatistics()
	}
	s.adaptToLimit()
	s.set(&s.report, s.config.StatusUpdateTime)
}

// dismiss takes a connection that leaves a cache without a client.
func (s *Server) dismiss(c *cache, fd int, why store.Reason) {
	c.stats.closed[why]++
	c.watch.end(fd)
	s.farewell.add(fd, why != store.HungUp && c.watch.quit(fd))
}

// arrived takes a client that was accepted, or introduced.
func (s *Server) arrived(c *conn) {
	s.descriptors.open++
	if !s.served {
		s.served = true
		if s.config.FirstClient != nil {
			s.config.FirstClient()
		}
	}
	if err := s.admit(c); err != nil {
		c.session.fault("%v", err)
		s.descriptors.closeClient(c.fd)
		return
	}
	c.announce = true
	s.loop.Again(c.fd)
}

func (s *Server) admit(c *conn) error {
	if err := s.loop.Add(c.fd, c); err != nil {
		return err
	}
	s.clients[c] = struct{}{}
	c.session.cache.counters.arrived()
	s.timers.Stop(&s.idle.Timer)
	if s.config.Verbose {
		s.config.Log.Infof("connection established fd %d", c.fd)
	}
	return nil
}

// departed is called by a client that has closed itself.
func (s *Server) departed(c *conn) {
	delete(s.clients, c)
	c.session.cache.counters.clients--
	if s.config.Verbose {
		s.config.Log.Infof("connection closed fd %d", c.session.client)
	}
	if s.adopted && len(s.clients) == 0 {
		s.beginStop()
	}
	s.watchIdleness()
}

// watchIdleness starts the time after which a server without clients stops. What
// is cached does not count (master/multi_server.c).
func (s *Server) watchIdleness() {
	if len(s.clients) == 0 && s.config.MaxIdle > 0 {
		s.set(&s.idle, s.config.MaxIdle)
	}
}
