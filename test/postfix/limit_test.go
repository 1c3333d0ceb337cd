package postfix_test

import (
	"maps"
	"regexp"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
)

// However many deliver in parallel, a receiver has no more idle connections than
// connection_cache_endpoint_limit. Each receiver has its own.
func TestEndpointLimit(t *testing.T) {
	both(t, func(t *testing.T, program string, ours bool) {
		const most = 2
		slow := lab.SinkConfig{Greeting: 200 * time.Millisecond}
		sinks := map[string]*lab.Sink{"a.test": sink(t, slow), "b.test": sink(t, slow)}
		params := maps.Clone(forEver)
		params["connection_cache_endpoint_limit"] = "2"
		params["initial_destination_concurrency"] = "10"
		params["smtpd_end_of_data_restrictions"] = "check_client_access static:hold"
		cfg := caching(params, destination{"a.test", "127.0.0.1", sinks["a.test"].Port()},
			destination{"b.test", "127.0.0.1", sinks["b.test"].Port()})
		cfg.Scache = program
		cfg.SMTPProcs = 20
		l := start(t, cfg)

		const each = 60
		for domain := range sinks {
			must(t, l.Send(limit(t), lab.Load{Domain: domain, Messages: each}))
		}
		must(t, l.Release(limit(t)))
		must(t, l.WaitDelivered(limit(t), len(sinks)*each))
		for _, s := range sinks {
			if ours {
				must(t, lab.Poll(limit(t), func() bool { return s.Counts().Open <= most }))
			}
			c := s.Counts()
			t.Logf("%d connections at a time, %d at the end", c.MaxOpen, c.Open)
			if c.MaxOpen <= most || ours && c.Open != most || !ours && c.Open <= most {
				t.Errorf("%d connections at a time, %d at the end", c.MaxOpen, c.Open)
			}
			wantOnce(t, s, each)
		}
		wantNotLogged(t, l, trouble)
		if most := most * len(sinks); ours != (reported(t, l, "postfix").Connection <= most) {
			t.Errorf("more than %d connections at a time in the cache: %t", most, ours)
		}
	})
}

// A time to live that connection_cache_ttl_limit lowers is warned of: once, not for
// each message.
func TestLoweredTimeToLive(t *testing.T) {
	for name, test := range map[string]struct {
		limit    string
		warnings int
	}{"lowered": {"2s", 1}, "granted": {"45s", 0}} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, program string, ours bool) {
				s := sink(t, lab.SinkConfig{})
				cfg := caching(map[string]string{
					"smtp_connection_cache_time_limit": "45s",
					"connection_cache_ttl_limit":       test.limit,
				}, destination{"a.test", "127.0.0.1", s.Port()})
				cfg.Scache = program
				l := start(t, cfg)
				const messages = 100
				deliver(t, l, lab.Load{Domain: "a.test", Messages: messages})
				wantOnce(t, s, messages)

				want := 0
				if ours {
					want = test.warnings
				}
				warnings := l.LogLines(regexp.MustCompile(`/scache\[\d+\]: warning: `))
				lowered := l.LogLines(regexp.MustCompile(`/scache\[\d+\]: warning: .*asked 45s, granted 2s`))
				if len(lowered) != want || len(warnings) != want {
					t.Errorf("warnings are %q, want %d of a lowered time to live", warnings, want)
				}
			})
		})
	}
}
