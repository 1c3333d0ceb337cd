package lab

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SinkConfig is how a Sink behaves.
type SinkConfig struct {
	TLS       bool          // offer STARTTLS, with a certificate made on the spot
	Greeting  time.Duration // pause before the greeting: what a connection costs
	IdleClose time.Duration // close a session that was silent for so long; 0: never
}

// Sink is an SMTP receiver that takes all mail, throws it away, and counts.
type Sink struct {
	cfg      SinkConfig
	listener *net.TCPListener
	tls      *tls.Config
	sessions sync.WaitGroup

	mu         sync.Mutex
	closed     bool
	open       map[net.Conn]bool
	counts     Counts
	recipients map[string]int
}

// Counts is what a Sink has seen. Each session that is over ended in one of
// the last five ways.
type Counts struct {
	Sessions int // accepted
	Open     int // of them, still there
	MaxOpen  int
	Secured  int // of them, under TLS
	Messages int

	Deaf int // said QUIT, and did not wait for the reply

	Quit    int // said QUIT
	EOF     int // closed without a word
	Reset   int // closed with unread data, or broken
	Idle    int // closed by us, for silence
	Dropped int // closed by us, by Drop and its kin
}

// NewSink starts a receiver on a loopback port.
func NewSink(cfg SinkConfig) (*Sink, error) {
	listener, err := listen()
	if err != nil {
		return nil, err
	}
	s := &Sink{cfg: cfg, listener: listener, open: map[net.Conn]bool{}, recipients: map[string]int{}}
	if cfg.TLS {
		if s.tls, err = selfSigned(); err != nil {
			listener.Close()
			return nil, err
		}
	}
	s.sessions.Go(s.accept)
	return s, nil
}

// Port is where the receiver listens, on 127.0.0.1.
func (s *Sink) Port() int { return portOf(s.listener) }

// Counts is the state of the counters.
func (s *Sink) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Open = len(s.open)
	return c
}

// Recipients counts the messages that each recipient got.
func (s *Sink) Recipients() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.recipients)
}

// Close ends the receiver and its sessions.
func (s *Sink) Close() { s.end() }

// end returns when the last session is gone; none comes after those dropped.
func (s *Sink) end() (dropped int) {
	s.listener.Close()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	dropped = s.Drop()
	s.sessions.Wait()
	return dropped
}

// Drop closes the sessions there are, and returns how many these were. The
// clients see the end of file.
func (s *Sink) Drop() int { return s.drop(net.Conn.Close) }

// Reset is like Drop, but what the clients see is a connection reset.
func (s *Sink) Reset() int {
	return s.drop(func(conn net.Conn) error {
		conn.(*net.TCPConn).SetLinger(0)
		return conn.Close()
	})
}

// Dismiss is like Drop, but says so before: 421.
func (s *Sink) Dismiss() int {
	return s.drop(func(conn net.Conn) error {
		fmt.Fprint(conn, "421 4.4.2 Idle for too long\r\n")
		return conn.Close()
	})
}

// Restart ends the receiver and its sessions, and starts another on the same
// port. The counters go on. Returns like Drop.
func (s *Sink) Restart() (dropped int, err error) {
	dropped = s.end()
	if s.listener, err = net.ListenTCP("tcp4", s.listener.Addr().(*net.TCPAddr)); err != nil {
		return dropped, err
	}
	s.closed = false // nobody else is there
	s.sessions.Go(s.accept)
	return dropped, nil
}

func (s *Sink) drop(end func(net.Conn) error) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		end(conn)
	}
	return len(s.open)
}

func (s *Sink) accept() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, perhaps
			time.Sleep(pollInterval)
			continue
		}
		if !s.admit(conn) {
			conn.Close()
			return
		}
		s.sessions.Go(func() { s.serve(conn) })
	}
}

// admit enters a new session in the books, unless Close has gone over them.
func (s *Sink) admit(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open[conn] = true
	s.counts.Sessions++
	s.counts.MaxOpen = max(s.counts.MaxOpen, len(s.open))
	return true
}

func (s *Sink) count(change func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.counts)
}

// serve holds one session, from greeting to end.
func (s *Sink) serve(conn net.Conn) {
	time.Sleep(s.cfg.Greeting)
	ss := &session{sink: s}
	ss.use(conn)
	ss.reply("220 sink ESMTP")
	err := ss.run()
	deaf := err == nil && !ss.heard(conn.(*net.TCPConn))
	conn.Close()
	s.count(func(c *Counts) {
		delete(s.open, conn)
		switch {
		case err == nil:
			c.Quit++
			if deaf {
				c.Deaf++
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.Idle++
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			c.EOF++
		case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
			c.Reset++
		case errors.Is(err, net.ErrClosed):
			c.Dropped++
		}
	})
}

// session is one client's SMTP session.
type session struct {
	sink    *Sink
	conn    net.Conn
	r       *bufio.Reader
	w       *bufio.Writer
	rcpts   []string // of the present message
	secured bool
}

func (ss *session) use(conn net.Conn) {
	ss.conn = conn
	ss.r = bufio.NewReader(conn)
	ss.w = bufio.NewWriter(conn)
}

// run serves until QUIT, for which it returns nil.
func (ss *session) run() error {
	for {
		line, err := ss.readLine()
		if err != nil {
			return err
		}
		verb, arg, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO", "HELO":
			ss.reply(ss.greeting())
		case "STARTTLS":
			err = ss.startTLS()
		case "MAIL", "RSET":
			ss.rcpts = nil
			ss.reply("250 2.0.0 Ok")
		case "RCPT":
			ss.rcpts = append(ss.rcpts, address(arg))
			ss.reply("250 2.1.5 Ok")
		case "DATA":
			err = ss.data()
		case "QUIT":
			ss.reply("221 2.0.0 Bye")
			return ss.w.Flush()
		default:
			ss.reply("250 2.0.0 Ok")
		}
		if err != nil {
			return err
		}
	}
}

// heard leaves it to the client to close, for a moment, and reports whether it has
// read the reply to QUIT: otherwise the kernel answers it with a reset. That is an
// error of the read or, where the end of file came first, pending some time later.
func (ss *session) heard(conn *net.TCPConn) bool {
	deadline := time.Now().Add(courtesy)
	ss.conn.SetReadDeadline(deadline)
	if _, err := ss.r.ReadByte(); errors.Is(err, syscall.ECONNRESET) {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	for {
		onTheWay, reset := fate(raw)
		if reset {
			return false
		}
		if !onTheWay || time.Now().After(deadline) {
			return true
		}
		time.Sleep(time.Millisecond)
	}
}

// fate is what became of what was sent: not acknowledged yet, or answered with a
// reset. A reset leaves its error before it empties the queue.
func fate(raw syscall.RawConn) (onTheWay, reset bool) {
	raw.Control(func(fd uintptr) {
		unacknowledged, err1 := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		pending, err2 := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		onTheWay, reset = err1 == nil && unacknowledged > 0, err2 != nil || pending != 0
	})
	return onTheWay, reset
}

// courtesy is how long a client that said QUIT may take to close.
const courtesy = time.Second

func (ss *session) greeting() string {
	text := "250-sink\r\n250-PIPELINING\r\n"
	if ss.sink.tls != nil && !ss.secured {
		text += "250-STARTTLS\r\n"
	}
	return text + "250 ENHANCEDSTATUSCODES"
}

func (ss *session) startTLS() error {
	ss.reply("220 2.0.0 Ready")
	if err := ss.w.Flush(); err != nil {
		return err
	}
	ss.use(tls.Server(ss.conn, ss.sink.tls))
	ss.secured = true
	ss.sink.count(func(c *Counts) { c.Secured++ })
	return nil
}

func (ss *session) data() error {
	ss.reply("354 End with a dot")
	for {
		line, err := ss.readLine()
		if err != nil {
			return err
		}
		if line == "." {
			break
		}
	}
	ss.sink.count(func(c *Counts) {
		c.Messages++
		for _, rcpt := range ss.rcpts {
			ss.sink.recipients[rcpt]++
		}
	})
	ss.reply("250 2.0.0 Taken")
	return nil
}

// readLine sends the pending replies before it has to wait for the client:
// this is what makes command pipelining pay.
func (ss *session) readLine() (string, error) {
	if ss.r.Buffered() == 0 {
		if err := ss.w.Flush(); err != nil {
			return "", err
		}
		if idle := ss.sink.cfg.IdleClose; idle > 0 {
			ss.conn.SetReadDeadline(time.Now().Add(idle))
		}
	}
	line, err := ss.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// reply queues an answer; a failure to send shows at the next Flush.
func (ss *session) reply(text string) { fmt.Fprintf(ss.w, "%s\r\n", text) }

// address takes the path out of `TO:<user@domain> PARAMETERS`.
func address(arg string) string {
	_, arg, _ = strings.Cut(arg, "<")
	arg, _, _ = strings.Cut(arg, ">")
	return arg
}
