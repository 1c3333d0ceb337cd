package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// dial opens a session and reads the greeting.
func dial(t *testing.T, s *Sink) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	conn, err := net.DialTCP("tcp4", nil, s.listener.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
		t.Fatalf("greeting %q, %v", line, err)
	}
	return conn, r
}

func quit(conn *net.TCPConn) { fmt.Fprint(conn, "QUIT\r\n") }

// awaitInput returns when there is something to read, and leaves it unread.
func awaitInput(conn *net.TCPConn) {
	raw, _ := conn.SyscallConn()
	raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		return err != syscall.EAGAIN
	})
}

// A session's end is put down for what it was.
func TestSinkEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		cfg  SinkConfig
		end  func(*net.TCPConn, *Sink)
		want Counts
	}{
		{"quit", SinkConfig{}, func(c *net.TCPConn, _ *Sink) { quit(c); c.Read(make([]byte, 99)); c.Close() }, Counts{Quit: 1}},
		{"quit and close", SinkConfig{}, func(c *net.TCPConn, _ *Sink) { quit(c); c.Close() }, Counts{Quit: 1, Deaf: 1}},
		{"quit and reset", SinkConfig{}, func(c *net.TCPConn, _ *Sink) { quit(c); awaitInput(c); c.Close() }, Counts{Quit: 1, Deaf: 1}},
		{"quit and stay", SinkConfig{}, func(c *net.TCPConn, _ *Sink) { quit(c) }, Counts{Quit: 1}},
		{"close", SinkConfig{}, func(c *net.TCPConn, _ *Sink) { c.Close() }, Counts{EOF: 1}},
		{"reset", SinkConfig{}, func(c *net.TCPConn, _ *Sink) { c.SetLinger(0); c.Close() }, Counts{Reset: 1}},
		{"silence", SinkConfig{IdleClose: time.Millisecond}, func(*net.TCPConn, *Sink) {}, Counts{Idle: 1}},
		{"dropped", SinkConfig{}, func(_ *net.TCPConn, s *Sink) { s.Drop() }, Counts{Dropped: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := NewSink(test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			conn, _ := dial(t, s)
			test.end(conn, s)
			if err := Poll(limit(t), func() bool { return s.Counts().Open == 0 }); err != nil {
				t.Fatal(err)
			}
			test.want.Sessions, test.want.MaxOpen = 1, 1
			if got := s.Counts(); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// Commands sent ahead are answered one by one.
func TestSinkPipelining(t *testing.T) {
	s, err := NewSink(SinkConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn, r := dial(t, s)
	fmt.Fprint(conn, "MAIL FROM:<>\r\nRCPT TO:<a@x.test> ORCPT=b\r\nDATA\r\ntext\r\n..\r\n.\r\nQUIT\r\n")
	for _, want := range []string{"250", "250", "354", "250", "221"} {
		line, err := r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) {
			t.Fatalf("got %q, %v, want %s", line, err, want)
		}
	}
	if n := s.Recipients()["a@x.test"]; n != 1 {
		t.Errorf("recipient got %d messages", n)
	}
}

func TestStatisticsParser(t *testing.T) {
	const (
		stamp  = "Nov  3 15:47:55 lab postfix/scache[7]: statistics: "
		start  = stamp + "start interval Nov  3 15:47:55"
		domain = stamp + "domain lookup hits=2 miss=1 success=66%"
		maxima = stamp + "max simultaneous domains=4 addresses=2 connection=51"
	)
	for _, test := range []struct {
		name  string
		lines []string
		ok    bool
	}{
		{"whole", []string{start, domain, maxima, start, domain}, true},
		{"no start", []string{domain}, false},
		{"out of order", []string{start, maxima, domain}, false},
		{"twice", []string{start, domain, domain}, false},
		{"rounded up", []string{start, strings.Replace(domain, "66", "67", 1)}, false},
		{"day with a zero", []string{strings.ReplaceAll(start, "Nov  3", "Nov 03")}, false},
		{"other name", []string{strings.Replace(start, "postfix/", "relay/", 1)}, false},
		{"trailing blank", []string{start + " "}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := &Lab{dir: t.TempDir()}
			if err := os.WriteFile(l.path("log"), []byte(strings.Join(test.lines, "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if stats, err := l.Statistics("postfix"); (err == nil) != test.ok {
				t.Errorf("%+v, %v", stats, err)
			}
		})
	}
}

// Whatever happens to us, the instance does not outlive us.
func TestGuard(t *testing.T) {
	l, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Start(limit(t)); err != nil {
		t.Fatal(err)
	}
	l.guard.input.Close() // as when we die
	if err := l.guard.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if left := l.Processes(); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	if _, err := os.Stat(l.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", l.dir, err)
	}
}
