package postfix_test

import (
	"regexp"
	"testing"

	"github.com/scache/scache/internal/lab"
)

// Four destinations on two receivers, with Postfix's own tools at both ends.
func TestDestinations(t *testing.T) {
	t.Run("chroot", func(t *testing.T) { testDestinations(t, true) })
	t.Run("no chroot", func(t *testing.T) { testDestinations(t, false) })
}

func testDestinations(t *testing.T, chroot bool) {
	x, y := smtpSink(t), smtpSink(t)
	cfg := caching(nil,
		destination{"a.test", "127.0.0.1", x.Port()}, destination{"b.test", "localhost", x.Port()},
		destination{"c.test", "127.0.0.1", y.Port()}, destination{"d.test", "localhost", y.Port()})
	cfg.Chroot = chroot
	l := start(t, cfg)

	const each, messages = 150, 600
	sent := make(chan error)
	for domain := range cfg.Routes {
		go func() { sent <- l.Send(limit(t), lab.Load{Domain: domain, Messages: each}) }()
	}
	for range cfg.Routes {
		must(t, <-sent)
	}
	must(t, l.WaitDelivered(limit(t), messages))
	wantIdentity(t, l, chroot)
	stats := reported(t, l, "postfix")
	must(t, l.Stop(limit(t)))

	seen := counts(t, x)
	more := counts(t, y)
	connections := seen.Sessions + more.Sessions
	if got := seen.Messages + more.Messages; got != messages {
		t.Errorf("%d messages arrived, want %d", got, messages)
	}
	wantReuse(t, messages, connections, 5)
	wantLog(t, l, `/smtp\[\d+\]: .* conn_use=[2-9]`)
	wantNotLogged(t, l, trouble)

	if got := stats.DomainHits + stats.DomainMisses; got != messages {
		t.Errorf("%d look-ups by destination, want one for each of %d messages", got, messages)
	}
	if got := stats.Hits() + connections; got != messages {
		t.Errorf("%d found and %d opened connections for %d messages", stats.Hits(), connections, messages)
	}
	if stats.Domains > 4 || stats.Addresses > 2 || stats.Connection < 1 {
		t.Errorf("impossible maxima: %+v", stats)
	}
}

func smtpSink(t *testing.T) *lab.SMTPSink {
	t.Helper()
	s, err := lab.NewSMTPSink(limit(t))
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

func counts(t *testing.T, s *lab.SMTPSink) lab.SMTPSinkCounts {
	t.Helper()
	c, err := s.Counts(limit(t))
	must(t, err)
	return c
}

// wantIdentity asserts under what rights the cache runs, every thread of it.
func wantIdentity(t *testing.T, l *lab.Lab, chroot bool) {
	t.Helper()
	id, err := lab.IdentityOf(scache(t, l))
	must(t, err)
	want := "/"
	if chroot {
		want = l.QueueDir()
	}
	if id.Root != want {
		t.Errorf("root directory is %s, want %s", id.Root, want)
	}
	for _, thread := range id.UIDs {
		for _, uid := range thread {
			if uid != l.OwnerUID() {
				t.Errorf("a thread runs with user ids %v, want %d throughout", thread, l.OwnerUID())
				break
			}
		}
	}
}

// Without a list of destinations Postfix caches for one that has mail
// waiting: all of it is queued before the first delivery.
func TestOnDemand(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	l := start(t, lab.Config{
		Main: map[string]string{
			"smtp_connection_cache_on_demand": "yes",
			"smtpd_end_of_data_restrictions":  "check_client_access static:hold",
		},
		Routes: routes(destination{"a.test", "127.0.0.1", s.Port()}),
	})
	const messages = 400
	must(t, l.Send(limit(t), lab.Load{Domain: "a.test", Messages: messages}))
	must(t, l.Release(limit(t)))
	must(t, l.WaitDelivered(limit(t), messages))
	wantOnce(t, s, messages)
	wantReuse(t, messages, s.Counts().Sessions, 3)
	wantNotLogged(t, l, trouble)
}

var reusingTLS = map[string]string{
	"smtp_tls_security_level":        "may",
	"smtp_tls_connection_reuse":      "yes",
	"smtp_tls_loglevel":              "1",
	"tlsproxy_client_security_level": "may", // tlsproxy 3.7.11 crashes without
}

// With TLS what smtp(8) caches is a UNIX-domain stream to tlsproxy(8).
func TestTLS(t *testing.T) {
	s := sink(t, lab.SinkConfig{TLS: true})
	l := start(t, caching(reusingTLS, destination{"a.test", "127.0.0.1", s.Port()}, destination{"b.test", "localhost", s.Port()}))

	const each, messages = 150, 300
	deliver(t, l, lab.Load{Domain: "a.test", Messages: each})
	deliver(t, l, lab.Load{Domain: "b.test", Messages: each})
	wantOnce(t, s, messages)
	c := s.Counts()
	wantReuse(t, messages, c.Sessions, 3)
	if c.Secured != c.Sessions {
		t.Errorf("%d of %d sessions under TLS", c.Secured, c.Sessions)
	}
	wantLog(t, l, `TLS connection reused to `)
	wantNotLogged(t, l, trouble)
}

// A verbose smtp(8) tells what it gets out of the cache.
func TestVerboseClient(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	cfg := caching(nil, destination{"a.test", "127.0.0.1", s.Port()})
	cfg.SMTPArgs = []string{"-v"}
	l := start(t, cfg)

	const messages = 20
	deliver(t, l, lab.Load{Domain: "a.test", Messages: messages, Sessions: 1})
	wantOnce(t, s, messages)
	cached := l.LogLines(regexp.MustCompile(`smtp_session_activate: dest=.* host=127\.0\.0\.1 .* reuse=[1-9]`))
	if want := messages - s.Counts().Sessions; len(cached) != want || want == 0 {
		t.Errorf("smtp -v shows %d cached connections, want %d", len(cached), want)
	}
	wantLog(t, l, `scache_clnt_find_dest: dest=smtp.* fd=\d+`)
	wantNotLogged(t, l, trouble)
}

// Another syslog_name is another name in the log, and nothing else.
func TestSyslogName(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	l := start(t, caching(map[string]string{"syslog_name": "relay-1"}, destination{"a.test", "127.0.0.1", s.Port()}))
	const messages = 50
	deliver(t, l, lab.Load{Domain: "a.test", Messages: messages})
	wantOnce(t, s, messages)
	if stats := reported(t, l, "relay-1"); stats.Hits() == 0 {
		t.Errorf("nothing found in the cache: %+v", stats)
	}
	wantNotLogged(t, l, `postfix/scache`)
}

// A service of another name is used, and logged under the program's name.
func TestServiceName(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	cfg := caching(map[string]string{"connection_cache_service_name": "conncache"},
		destination{"a.test", "127.0.0.1", s.Port()})
	cfg.Service = "conncache"
	cfg.Chroot = true
	l := start(t, cfg)
	const messages = 150
	deliver(t, l, lab.Load{Domain: "a.test", Messages: messages})
	wantOnce(t, s, messages)
	wantReuse(t, messages, s.Counts().Sessions, 3)
	if stats := reported(t, l, "postfix"); stats.Hits() == 0 {
		t.Errorf("nothing found in the cache: %+v", stats)
	}
	wantNotLogged(t, l, trouble)
}
