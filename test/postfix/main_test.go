// Package postfix_test runs a real Postfix with the cache in the place of its
// scache(8), and looks at what operators and receivers see: mail delivered,
// connections opened, lines logged.
//
// SCACHE_BINARY names another binary to test, such as Postfix's own:
//
//	SCACHE_BINARY=/usr/lib/postfix/sbin/scache go test ./test/postfix
package postfix_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
)

var (
	binary      string // the scache under test
	stockBinary string // Postfix's own
	stock       bool   // they are the same
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if stockBinary, err = lab.StockScache(); errors.Is(err, lab.ErrNotInstalled) {
		fmt.Fprintf(os.Stderr, "%v\nThese tests need it: `make test` installs Debian's package first.\n", err)
		return 1
	}
	var remove func()
	if binary, remove, err = lab.UnderTest(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	stock = sameFile(binary, stockBinary)
	return m.Run()
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// patience bounds a whole test. It is far more than any needs: what is
// asserted is never how long something took.
const patience = 2 * time.Minute

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// must ends the test at the first step that fails.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start builds an instance around the binary under test, if the configuration
// names no other, and starts it.
func start(t *testing.T, cfg lab.Config) *lab.Lab {
	t.Helper()
	cfg.Scache = cmp.Or(cfg.Scache, binary)
	l, err := lab.New(cfg)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("from the mail log:\n%s", strings.Join(tail(l.LogLines(telling), 60), "\n"))
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, l.Start(limit(t)))
	return l
}

// telling picks the lines that explain a failure.
var telling = regexp.MustCompile(`/scache\[|/master\[|/postfix-script\[|warning: |fatal: |panic: |status=[^s]`)

func tail(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }

// sink starts a receiver that counts exactly.
func sink(t *testing.T, cfg lab.SinkConfig) *lab.Sink {
	t.Helper()
	s, err := lab.NewSink(cfg)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

// destination is a domain routed to a port by way of a host name.
type destination struct {
	domain, host string
	port         int
}

// caching is the configuration that caches for destinations by name.
func caching(main map[string]string, destinations ...destination) lab.Config {
	params := map[string]string{"smtp_connection_cache_destinations": "127.0.0.1, localhost"}
	maps.Copy(params, main)
	return lab.Config{Main: params, Routes: routes(destinations...)}
}

func routes(destinations ...destination) map[string]string {
	table := map[string]string{}
	for _, d := range destinations {
		table[d.domain] = fmt.Sprintf("[%s]:%d", d.host, d.port)
	}
	return table
}

// deliver sends mail and waits until all that was ever sent has arrived.
func deliver(t *testing.T, l *lab.Lab, load lab.Load) {
	t.Helper()
	before := l.Delivered()
	must(t, l.Send(limit(t), load))
	must(t, l.WaitDelivered(limit(t), before+load.Messages))
}

// wantReuse asserts that a connection carried at least so many messages on average.
func wantReuse(t *testing.T, messages, connections, atLeast int) {
	t.Helper()
	t.Logf("%d messages, %d connections", messages, connections)
	if connections == 0 || messages < atLeast*connections {
		t.Errorf("%d messages took %d connections, want at least %d messages each", messages, connections, atLeast)
	}
}

// wantOnce asserts that each of the messages arrived, and once only.
func wantOnce(t *testing.T, s *lab.Sink, messages int) {
	t.Helper()
	got := s.Recipients()
	if len(got) != messages {
		t.Errorf("%d of %d messages arrived", len(got), messages)
	}
	for rcpt, n := range got {
		if n != 1 {
			t.Errorf("the message to %s arrived %d times", rcpt, n)
		}
	}
}

func wantLog(t *testing.T, l *lab.Lab, pattern string) {
	t.Helper()
	if len(l.LogLines(regexp.MustCompile(pattern))) == 0 {
		t.Errorf("no line in the mail log matches %q", pattern)
	}
}

// forEver are times to live, of connections and of processes, that outlast any test.
var forEver = map[string]string{
	"smtp_connection_cache_time_limit": "1h",
	"connection_cache_ttl_limit":       "1h",
	"max_idle":                         "1h",
}

// both runs a scenario with the cache under test, and with Postfix's own: what is
// better must show in the difference. It goes on beside other tests.
func both(t *testing.T, scenario func(t *testing.T, program string, ours bool)) {
	t.Parallel()
	t.Run("stock", func(t *testing.T) {
		t.Parallel()
		scenario(t, stockBinary, false)
	})
	t.Run("ours", func(t *testing.T) {
		if stock {
			t.Skip("Postfix's own is under test")
		}
		t.Parallel()
		scenario(t, binary, true)
	})
}

// wantNotLogged puts up with lines that contain what is tolerated.
func wantNotLogged(t *testing.T, l *lab.Lab, pattern string, tolerated ...string) {
	t.Helper()
	lines := slices.DeleteFunc(l.LogLines(regexp.MustCompile(pattern)), func(line string) bool {
		return slices.ContainsFunc(tolerated, func(text string) bool { return strings.Contains(line, text) })
	})
	if len(lines) > 0 {
		t.Errorf("in the mail log:\n%s", strings.Join(tail(lines, 5), "\n"))
	}
}

// trouble is what master(8) and the cache's clients log when the cache fails.
const trouble = `throttling|disabling connection caching|problem talking to service|scache.*(warning|error|fatal|panic): |warning: process .*/scache `

// reported reloads, and returns the statistics of the cache that left.
func reported(t *testing.T, l *lab.Lab, syslogName string) lab.Stats {
	t.Helper()
	must(t, l.Reload(limit(t)))
	must(t, l.WaitLog(limit(t), regexp.MustCompile(`statistics: max simultaneous`)))
	return statistics(t, l, syslogName)
}

func statistics(t *testing.T, l *lab.Lab, syslogName string) lab.Stats {
	t.Helper()
	stats, err := l.Statistics(syslogName)
	if err != nil {
		t.Error(err)
	}
	return stats
}

// scache waits for the cache's process.
func scache(t *testing.T, l *lab.Lab) (pid int) {
	t.Helper()
	var running bool
	must(t, lab.Poll(limit(t), func() bool { pid, running = l.ScachePID(); return running }))
	return pid
}
