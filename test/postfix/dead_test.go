package postfix_test

import (
	"regexp"
	"testing"

	"github.com/scache/scache/internal/lab"
)

// However a receiver ends its idle connections, no delivery meets a dead one.
// Postfix's own hands them all out.
func TestDeadConnections(t *testing.T) {
	for name, end := range map[string]func(*lab.Sink) (int, error){
		"closed":    func(s *lab.Sink) (int, error) { return s.Drop(), nil },
		"dismissed": func(s *lab.Sink) (int, error) { return s.Dismiss(), nil },
		"reset":     func(s *lab.Sink) (int, error) { return s.Reset(), nil },
		"restarted": (*lab.Sink).Restart,
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, program string, ours bool) { testDeadConnections(t, program, ours, end) })
		})
	}
}

// activated is what a verbose smtp(8) says of each connection that it gets out of
// the cache, before it tries whether that is alive.
var activated = regexp.MustCompile(`smtp_session_activate: dest=`)

func testDeadConnections(t *testing.T, program string, ours bool, end func(*lab.Sink) (int, error)) {
	s := sink(t, lab.SinkConfig{})
	cfg := caching(forEver, destination{"a.test", "127.0.0.1", s.Port()})
	cfg.Scache = program
	cfg.SMTPArgs = []string{"-v"}
	l := start(t, cfg)

	// A connection out of the cache that was alive has saved opening one.
	const burst = 40
	sent := 0
	met := func(user string) int {
		deliver(t, l, lab.Load{User: user, Domain: "a.test", Messages: burst, Sessions: 10})
		sent += burst
		return len(l.LogLines(activated)) - (sent - s.Counts().Sessions)
	}
	if n := met("one"); n != 0 {
		t.Fatalf("%d dead connections while all were alive", n)
	}

	dropped, err := end(s)
	must(t, err)
	n := met("two")
	t.Logf("%d of %d dead connections were handed out", n, dropped)
	if dropped == 0 || ours != (n == 0) {
		t.FailNow()
	}
	wantOnce(t, s, sent)
	wantNotLogged(t, l, trouble)
	if !ours {
		return
	}

	// Nor does the cache keep them until somebody looks them up.
	pid := scache(t, l)
	before := lab.Sockets(pid)
	dropped, err = end(s)
	must(t, err)
	must(t, lab.Poll(limit(t), func() bool { return lab.Sockets(pid) <= before-dropped }))
}
