package postfix_test

import (
	"fmt"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
)

// Left alone, the cache goes, with status 0 and all that it holds; the next
// client gets another one.
func TestMaxIdle(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	cfg := caching(map[string]string{
		"smtp_connection_cache_time_limit": "1h",
		"connection_cache_ttl_limit":       "1h",
	}, destination{"a.test", "127.0.0.1", s.Port()})
	cfg.MasterArgs = []string{"-o", "max_idle=1s"}
	cfg.SMTPArgs = []string{"-o", "max_idle=1s"} // a cache with a client is not idle
	l := start(t, cfg)

	left := func() int { return statistics(t, l, "postfix").Processes }
	deliver(t, l, lab.Load{User: "one", Domain: "a.test", Messages: 20})
	must(t, lab.Poll(limit(t), func() bool { return left() > 0 }))
	must(t, lab.Poll(limit(t), func() bool { return s.Counts().Open == 0 }))
	first := left()
	if c := s.Counts(); c.EOF == 0 {
		t.Errorf("what was cached did not end with the process: %+v", c)
	}

	deliver(t, l, lab.Load{User: "two", Domain: "a.test", Messages: 20})
	must(t, lab.Poll(limit(t), func() bool { return left() > first }))
	wantOnce(t, s, 40)
	wantNotLogged(t, l, trouble)
}

// Words of the master.cf line go before main.cf: here a longer time to live.
func TestLongerTTL(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	cfg := caching(map[string]string{
		"smtp_connection_cache_time_limit": "1h",
		"connection_cache_ttl_limit":       "1s",
	}, destination{"a.test", "127.0.0.1", s.Port()})
	cfg.MasterArgs = []string{"-o", "connection_cache_ttl_limit=1h"}
	l := start(t, cfg)

	deliver(t, l, lab.Load{Domain: "a.test", Messages: 20})
	time.Sleep(3 * time.Second) // more than main.cf's limit
	if c := s.Counts(); c.Open == 0 {
		t.Errorf("nothing cached any more: %+v", c)
	}
	wantNotLogged(t, l, trouble)
}

// And a shorter one, with statistics at short intervals from a process that stays.
func TestShorterTTLAndInterval(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	cfg := caching(map[string]string{
		"smtp_connection_cache_time_limit": "1h",
		"connection_cache_ttl_limit":       "1h",
	}, destination{"a.test", "127.0.0.1", s.Port()})
	cfg.MasterArgs = []string{"-o", "connection_cache_ttl_limit=1s", "-o", "connection_cache_status_update_time=1s"}
	l := start(t, cfg)

	deliver(t, l, lab.Load{Domain: "a.test", Messages: 20})
	before := scache(t, l)
	must(t, lab.Poll(limit(t), func() bool { return s.Counts().Open == 0 }))
	must(t, l.WaitLog(limit(t), regexp.MustCompile(`statistics: max simultaneous`)))
	statistics(t, l, "postfix")
	if after := scache(t, l); after != before {
		t.Errorf("process %d has become %d", before, after)
	}
	wantNotLogged(t, l, trouble, "asked 3600s, granted 1s")
}

// Loads under which something happens to the cache.
const (
	rounds = 4
	round  = 300 // messages
)

// under sends mail in rounds, and calls disturb in the middle of each with
// the number of messages sent until then; it returns when all have arrived.
func under(t *testing.T, l *lab.Lab, s *lab.Sink, disturb func(sent int)) {
	t.Helper()
	ctx := limit(t)
	for i := range rounds {
		before := s.Counts().Messages
		done := make(chan error, 1)
		go func() {
			done <- l.Send(ctx, lab.Load{User: fmt.Sprintf("round-%d-", i), Domain: "a.test", Messages: round})
		}()
		must(t, lab.Poll(ctx, func() bool { return s.Counts().Messages >= before+round/4 }))
		disturb((i + 1) * round)
		must(t, <-done)
	}
	must(t, l.WaitDelivered(ctx, rounds*round))
	wantOnce(t, s, rounds*round)
	wantReuse(t, rounds*round, s.Counts().Sessions, 3)
	wantNotLogged(t, l, `throttling|panic: |fatal: `)
}

func TestReloadUnderLoad(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	l := start(t, caching(nil, destination{"a.test", "127.0.0.1", s.Port()}))
	under(t, l, s, func(int) { must(t, l.Reload(limit(t))) })
	resets := l.LogLines(regexp.MustCompile(`problem talking to service private/scache`))
	t.Logf("%d requests were cut off", len(resets))
	if stats := statistics(t, l, "postfix"); stats.Processes < 2 {
		t.Errorf("statistics of %d processes only", stats.Processes)
	}
}

func TestKillUnderLoad(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	l := start(t, caching(nil, destination{"a.test", "127.0.0.1", s.Port()}))
	victims := map[int]bool{}
	under(t, l, s, func(sent int) {
		pid := busy(t, l, s, sent)
		victims[pid] = true
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	})
	if len(victims) != rounds {
		t.Errorf("%d processes killed in %d rounds", len(victims), rounds)
	}
}

// busy waits until the cache serves, and is at it for a while: for one that
// dies before its first word to master(8) the service is throttled.
func busy(t *testing.T, l *lab.Lab, s *lab.Sink, sent int) (pid int) {
	t.Helper()
	const itsOwn = 3 // log, status channel, listener
	must(t, lab.Poll(limit(t), func() bool {
		pid = scache(t, l)
		return lab.Sockets(pid) > itsOwn+2
	}))
	enough := min(s.Counts().Messages+20, sent)
	must(t, lab.Poll(limit(t), func() bool { return s.Counts().Messages >= enough }))
	return pid
}

// Two caches would each know half of the connections: the daemon refuses,
// and mail goes without.
func TestProcessLimit(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	cfg := caching(nil, destination{"a.test", "127.0.0.1", s.Port()})
	cfg.Limit = "2"
	cfg.SMTPProcs = 3 // each gives up on the cache after some seconds
	l := start(t, cfg)
	const messages = 60
	deliver(t, l, lab.Load{Domain: "a.test", Messages: messages})
	wantOnce(t, s, messages)
	wantLog(t, l, `postfix/scache\[\d+\]: fatal: service scache requires a process limit of 1$`)
	wantLog(t, l, `postfix/master\[\d+\]: warning: process .*/scache pid \d+ exit status 1$`)
}

func TestStop(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	l := start(t, caching(map[string]string{
		"smtp_connection_cache_time_limit": "1h",
		"connection_cache_ttl_limit":       "1h",
	}, destination{"a.test", "127.0.0.1", s.Port()}))
	deliver(t, l, lab.Load{Domain: "a.test", Messages: 50})
	if s.Counts().Open == 0 {
		t.Error("nothing cached")
	}
	must(t, l.Stop(limit(t))) // returns when the last process is gone
	must(t, lab.Poll(limit(t), func() bool { return s.Counts().Open == 0 }))
	wantNotLogged(t, l, `throttling|panic: |fatal: |with force`)
}

// Told to go by a signal, Postfix's own dies without a word. `postfix stop`
// ends postlogd(8) at the same time, so the test signals the cache alone.
func TestTermination(t *testing.T) {
	s := sink(t, lab.SinkConfig{})
	l := start(t, caching(nil, destination{"a.test", "127.0.0.1", s.Port()}))
	deliver(t, l, lab.Load{Domain: "a.test", Messages: 50})
	pid := scache(t, l)
	must(t, syscall.Kill(pid, syscall.SIGTERM))
	must(t, lab.Poll(limit(t), func() bool { now, running := l.ScachePID(); return !running || now != pid }))
	if stock {
		return
	}
	must(t, l.WaitLog(limit(t), regexp.MustCompile(`statistics: max simultaneous`)))
	if stats := statistics(t, l, "postfix"); stats.Hits() == 0 {
		t.Errorf("nothing found in the cache: %+v", stats)
	}
}
