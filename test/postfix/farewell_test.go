package postfix_test

import (
	"fmt"
	"maps"
	"regexp"
	"testing"

	"github.com/scache/scache/internal/lab"
)

// With connection_cache_close_handshake = quit every session ends with QUIT, and its
// reply is read, for whatever reason the connection leaves the cache: expiry,
// eviction, or the end of the cache. Else, and with Postfix's own, some end without.
func TestFarewell(t *testing.T) {
	for name, main := range map[string]map[string]string{
		"expired": {},
		"evicted": {"connection_cache_size_limit": "2", "connection_cache_ttl_limit": "1h", "smtp_connection_cache_time_limit": "1h"},
		"ended":   forEver,
		"TLS":     {"smtp_tls_security_level": "may", "smtp_tls_connection_reuse": "yes"},
	} {
		for _, quit := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/quit=%v", name, quit), func(t *testing.T) {
				t.Parallel()
				both(t, func(t *testing.T, program string, ours bool) {
					if !ours && !quit && name != "expired" {
						t.Skip("the same as above")
					}
					testFarewell(t, program, ours && quit, name == "TLS", quit, main)
				})
			})
		}
	}
}

func testFarewell(t *testing.T, program string, want, tls, quit bool, main map[string]string) {
	s := sink(t, lab.SinkConfig{TLS: tls})
	params := maps.Clone(main)
	if quit {
		params["connection_cache_close_handshake"] = "quit" // stock does not know it
	}
	cfg := caching(params, destination{"a.test", "127.0.0.1", s.Port()})
	cfg.Scache = program
	l := start(t, cfg)
	deliver(t, l, lab.Load{Domain: "a.test", Messages: 60, Sessions: 10})
	if main["connection_cache_ttl_limit"] != "" { // else all expires
		must(t, l.Reload(limit(t)))
	}
	must(t, lab.Poll(limit(t), func() bool { return s.Counts().Open == 0 }))
	c := s.Counts()
	t.Logf("%+v", c)
	if c.Sessions == 0 || tls && c.Secured == 0 {
		t.Fatalf("no sessions: %+v", c)
	}
	if all := c.Quit == c.Sessions && c.Deaf == 0; all != want {
		t.Errorf("%d of %d sessions ended with QUIT, %d of them deaf; all: %v, want %v", c.Quit, c.Sessions, c.Deaf, all, want)
	}
}

// A receiver that allows few connections: those that are idle count too.
func TestEndpointLimit(t *testing.T) {
	if stock {
		t.Skip("stock has no limit")
	}
	for _, limited := range []bool{true, false} {
		t.Run(fmt.Sprint(limited), func(t *testing.T) {
			t.Parallel()
			s := sink(t, lab.SinkConfig{})
			params := maps.Clone(forEver)
			if limited {
				params["connection_cache_endpoint_limit"] = "2"
			}
			l := start(t, caching(params, destination{"a.test", "127.0.0.1", s.Port()}))
			deliver(t, l, lab.Load{Domain: "a.test", Messages: 100, Sessions: 10})
			if limited {
				must(t, lab.Poll(limit(t), func() bool { return s.Counts().Open <= 2 }))
			} else if open := s.Counts().Open; open <= 2 {
				t.Errorf("%d idle connections, too few to be limited", open)
			}
		})
	}
}

// The trap of the two limits is told, once.
func TestLoweredTimeToLive(t *testing.T) {
	if stock {
		t.Skip("stock says nothing")
	}
	s := sink(t, lab.SinkConfig{})
	l := start(t, caching(map[string]string{"smtp_connection_cache_time_limit": "45s"}, destination{"a.test", "127.0.0.1", s.Port()}))
	deliver(t, l, lab.Load{Domain: "a.test", Messages: 50, Sessions: 5})
	if lines := l.LogLines(regexp.MustCompile(`asked 45s, granted 2s`)); len(lines) != 1 {
		t.Errorf("logged %q", lines)
	}
}
