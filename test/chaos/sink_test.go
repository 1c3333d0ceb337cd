package chaos

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A sink is all the servers that the cached connections lead to. It greets each
// connection with a serial number, and knows whether somebody uses it:
//
//	220 17         it is 17, and its first user's
//	GIVE  -> ok    who uses it is going to save it
//	TAKE  -> 17    who has found it uses it
//	QUIT  -> 221   the cache says good-bye (RFC 5321)
//
// So it notices when two use a connection at a time, or the cache says good-bye on
// one that it has handed out. At random it closes or resets connections.
type sink struct {
	listener *net.TCPListener
	fault    func(format string, arguments ...any)

	mu     sync.Mutex
	serial int
	open   map[int]*peer
	ended  map[int]time.Duration // those that the sink has ended, and when; 0: it is about to
	quits  int
}

type peer struct {
	serial int
	conn   *net.TCPConn
	used   bool
}

func newSink(fault func(string, ...any)) (*sink, error) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	s := &sink{listener: listener, fault: fault, open: map[int]*peer{}, ended: map[int]time.Duration{}}
	go s.accept()
	return s, nil
}

func (s *sink) address() string { return s.listener.Addr().String() }

func (s *sink) accept() {
	for {
		conn, err := s.listener.AcceptTCP()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.serial++
		p := &peer{serial: s.serial, conn: conn, used: true}
		s.open[p.serial] = p
		s.mu.Unlock()
		go s.serve(p)
	}
}

// serve is a connection's life.
func (s *sink) serve(p *peer) {
	fmt.Fprintf(p.conn, "220 %d\n", p.serial)
	lines := bufio.NewReader(p.conn)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		answer, done := s.command(p, strings.TrimSpace(line))
		if _, err := io.WriteString(p.conn, answer+"\n"); err != nil || done {
			break
		}
	}
	p.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, p.serial)
}

func (s *sink) command(p *peer, verb string) (answer string, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case verb == "TAKE" && !p.used:
		p.used = true
		return fmt.Sprint(p.serial), false
	case verb == "GIVE" && p.used:
		p.used = false
		return "ok", false
	case verb == "QUIT" && !p.used:
		s.quits++
		return "221 bye", true
	}
	s.fault("connection %d: %q, and somebody uses it: %v", p.serial, verb, p.used)
	return "503 out of turn", true
}

// harass ends connections at random, most of them such as nobody uses: the cache
// has them.
func (s *sink) harass(rnd *rand.Rand) {
	s.mu.Lock()
	var victim *peer
	for _, p := range s.open { // in no order
		if victim = p; !p.used {
			break
		}
	}
	if victim == nil {
		s.mu.Unlock()
		return
	}
	s.ended[victim.serial] = 0
	s.mu.Unlock()
	if rnd.IntN(2) == 0 {
		victim.conn.SetLinger(0) // a reset
	}
	victim.conn.Close()
	s.mu.Lock()
	s.ended[victim.serial] = now()
	s.mu.Unlock()
}

// aMoment is how long the cache may take to notice what the sink has done. It notices
// at the find itself; this is for the kernel.
const aMoment = time.Second

// complain says what is wrong if a client was handed a dead connection, for a request
// that it had sent at that time; nil is all right.
func (s *sink) complain(serial int, asked time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.ended[serial]
	switch {
	case !ok:
		return fmt.Errorf("connection %d was found dead, and the far end had not closed it", serial)
	case at != 0 && asked > at+aMoment:
		return fmt.Errorf("connection %d was found %v after the far end had closed it", serial, asked-at)
	}
	return nil
}

func (s *sink) opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (s *sink) close() {
	s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.open {
		p.conn.Close()
	}
}

// now is the monotonic clock, which is the same in all processes.
func now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}
