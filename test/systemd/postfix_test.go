package systemd_test

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/scache/scache/internal/lab"
)

// A real Postfix whose smtp(8) uses the service of a real systemd, as README says: one line in
// main.cf. Its own scache is never started, and "postfix check" has nothing against the socket.
func TestPostfixUsesTheService(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	sink, err := lab.NewSink(lab.SinkConfig{})
	must(err)
	defer sink.Close()
	l, err := lab.New(lab.Config{
		Scache: binary,
		Main: map[string]string{
			"connection_cache_service_name":      "scache-systemd",
			"smtp_connection_cache_destinations": "127.0.0.1",
		},
		Routes: map[string]string{"a.test": fmt.Sprintf("[127.0.0.1]:%d", sink.Port())},
	})
	must(err)
	defer l.Close()
	must(l.Start(ctx)) // makes the directories
	m := boot(t, filepath.Join(l.QueueDir(), "private"), nil)
	m.poll("the socket", func() bool { return m.property("scache.socket", "ActiveState") == "active" })
	must(l.Stop(ctx))
	must(l.Start(ctx)) // checks, and warns in the log

	const messages = 200
	must(l.Send(ctx, lab.Load{Domain: "a.test", Messages: messages}))
	must(l.WaitDelivered(ctx, messages))
	if pid, ok := l.ScachePID(); ok {
		t.Errorf("Postfix's own scache has been started, process %d", pid)
	}
	if out, err := m.run("systemctl", "stop", "scache.service"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	must(l.Stop(ctx))
	lines := slices.DeleteFunc(l.LogLines(regexp.MustCompile(`(warning|error|fatal|panic): `)), lab.AboutTheClock.MatchString)
	if len(lines) > 0 {
		t.Errorf("Postfix is not content: %q", lines)
	}
	connections, hits := sink.Counts().Sessions, reportedHits(t, m)
	t.Logf("%d messages, %d connections, %d hits", messages, connections, hits)
	if hits+connections != messages || connections*3 > messages {
		t.Errorf("%d hits and %d connections for %d messages", hits, connections, messages)
	}
}

// reportedHits adds up the statistics in the journal.
func reportedHits(t *testing.T, m *machine) (hits int) {
	t.Helper()
	journal, err := m.run("journalctl", "--unit=scache.service", "--output=cat")
	if err != nil {
		t.Fatalf("%v: %s", err, journal)
	}
	for _, match := range regexp.MustCompile(`(?m)^statistics: (?:domain|address) lookup hits=(\d+) `).FindAllStringSubmatch(journal, -1) {
		n, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		hits += n
	}
	return hits
}
