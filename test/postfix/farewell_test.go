package postfix_test

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/scache/scache/internal/lab"
)

// With connection_cache_close_handshake receivers are told QUIT, whatever made the
// connection leave the cache, and may reply. Without they are not, as ever.
func TestFarewell(t *testing.T) {
	for name, scenario := range map[string]func(*testing.T, farewell){
		"expiry":       testFarewellExpiry,
		"eviction":     testFarewellEviction,
		"TLS":          testFarewellTLS,
		"real Postfix": testFarewellSMTPD,
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, program string, ours bool) {
				scenario(t, farewell{program, "quit", ours})
			})
			t.Run("none", func(t *testing.T) {
				if stock {
					t.Skip("Postfix's own is under test")
				}
				t.Parallel()
				scenario(t, farewell{binary, "none", false})
			})
		})
	}
}

// farewell is one of the ways to close: which program, with which
// connection_cache_close_handshake, and whether it is to say QUIT.
type farewell struct {
	program   string
	handshake string
	polite    bool
}

// want waits until the receiver's sessions are over, and asserts how all ended.
func (f farewell) want(t *testing.T, s *lab.Sink) {
	t.Helper()
	must(t, lab.Poll(limit(t), func() bool { return s.Counts().Open == 0 }))
	c := s.Counts()
	want := lab.Counts{EOF: c.Sessions}
	if f.polite {
		want = lab.Counts{Quit: c.Sessions}
	}
	want.Sessions, want.MaxOpen, want.Messages, want.Secured = c.Sessions, c.MaxOpen, c.Messages, c.Secured
	if c != want || c.Sessions == 0 {
		t.Errorf("sessions ended so: %+v, want %+v", c, want)
	}
}

func testFarewellExpiry(t *testing.T, f farewell) {
	s := sink(t, lab.SinkConfig{})
	cfg := caching(map[string]string{
		"smtp_connection_cache_time_limit": "1s",
		"connection_cache_close_handshake": f.handshake,
	}, destination{"a.test", "127.0.0.1", s.Port()})
	cfg.Scache = f.program
	l := start(t, cfg)
	const messages = 40
	deliver(t, l, lab.Load{Domain: "a.test", Messages: messages})
	f.want(t, s)
	wantOnce(t, s, messages)
	wantNotLogged(t, l, trouble)
}

// A cache that holds one connection closes all others, and that one when it ends:
// told to by master(8), or by a signal.
func testFarewellEviction(t *testing.T, f farewell) {
	x, y := sink(t, lab.SinkConfig{}), sink(t, lab.SinkConfig{})
	cfg := caching(forEver, destination{"a.test", "127.0.0.1", x.Port()}, destination{"b.test", "127.0.0.1", y.Port()})
	cfg.Scache = f.program
	cfg.MasterArgs = []string{"-o", "connection_cache_size_limit=1", "-o", "connection_cache_close_handshake=" + f.handshake}
	l := start(t, cfg)
	const messages = 40
	load := lab.Load{Domain: "a.test", Messages: messages}
	deliver(t, l, load)
	load.Domain = "b.test"
	deliver(t, l, load)
	if f.program != stockBinary {
		f.want(t, x)
		must(t, lab.Poll(limit(t), func() bool { return y.Counts().Open == 1 }))
	}
	must(t, l.Reload(limit(t)))
	f.want(t, x)
	f.want(t, y)
	wantOnce(t, x, messages)
	wantOnce(t, y, messages)

	load.User = "again"
	deliver(t, l, load)
	if y.Counts().Open == 0 {
		t.Error("nothing cached")
	}
	must(t, l.Stop(limit(t)))
	f.want(t, y)
	wantOnce(t, y, 2*messages)
	wantNotLogged(t, l, trouble)
}

// The cache says QUIT to tlsproxy(8), which passes it on.
func testFarewellTLS(t *testing.T, f farewell) {
	s := sink(t, lab.SinkConfig{TLS: true})
	params := maps.Clone(reusingTLS)
	params["smtp_connection_cache_time_limit"] = "1s"
	params["connection_cache_close_handshake"] = f.handshake
	cfg := caching(params, destination{"a.test", "127.0.0.1", s.Port()})
	cfg.Scache = f.program
	l := start(t, cfg)
	const messages = 40
	deliver(t, l, lab.Load{Domain: "a.test", Messages: messages})
	f.want(t, s)
	if c := s.Counts(); c.Secured != c.Sessions {
		t.Errorf("%d of %d sessions under TLS", c.Secured, c.Sessions)
	}
	wantOnce(t, s, messages)
	wantNotLogged(t, l, trouble)
}

// What the receiver's log says if that is a Postfix, too: that of 3.7 tells of a connection
// that is closed after RSET, as is one that is cached after a refusal, but not of
// one that is closed after a message; that of 3.10 of neither.
func testFarewellSMTPD(t *testing.T, f farewell) {
	port, err := lab.FreePort()
	must(t, err)
	cfg := caching(map[string]string{
		"smtp_connection_cache_time_limit": "1s",
		"connection_cache_close_handshake": f.handshake,
	}, destination{"a.test", "127.0.0.1", port}, destination{"refused.test", "127.0.0.1", port})
	cfg.Scache = f.program
	cfg.Services = fmt.Sprintf(`127.0.0.1:%d inet n - n - - smtpd
	-o syslog_name=receiver -o myhostname=receiver.test -o smtpd_error_sleep_time=0
	-o { smtpd_recipient_restrictions = check_recipient_access inline:{refused.test=reject}, permit }
	-o { smtpd_end_of_data_restrictions = check_client_access static:discard }`, port)
	l := start(t, cfg)
	logged := func(pattern string) int { return len(l.LogLines(regexp.MustCompile(pattern))) }
	const each = 20
	deliver(t, l, lab.Load{Domain: "a.test", Messages: each})
	must(t, l.Send(limit(t), lab.Load{Domain: "refused.test", Messages: each}))
	must(t, lab.Poll(limit(t), func() bool { return logged(` status=bounced `) == each && l.QueueEmpty() }))

	const receiver = `receiver/smtpd\[\d+\]: `
	must(t, lab.Poll(limit(t), func() bool { return logged(receiver+`connect `) == logged(receiver+`disconnect `) }))
	sessions := logged(receiver + `disconnect `)
	lost := logged(receiver + `lost connection after `)
	quit := logged(receiver + `disconnect .* quit=1 `)
	t.Logf("%d sessions, %d lost, %d with QUIT", sessions, lost, quit)
	version, err := lab.PostfixVersion()
	must(t, err)
	mustTell := strings.HasPrefix(version, "3.7.")
	if f.polite && (lost != 0 || quit != sessions) || !f.polite && (lost == 0 && mustTell || quit != 0) {
		t.Fail()
	}
	wantNotLogged(t, l, trouble)
}
