package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/client"
	"github.com/scache/scache/internal/lab"
	"github.com/scache/scache/internal/manager"
)

// patience bounds every wait; what is asserted is never how long something took.
const patience = 20 * time.Second

// limit is a context that ends with the test, or with its patience.
func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func startService(t *testing.T, config manager.Config) *manager.Service {
	t.Helper()
	config.Binary = binary
	s, err := manager.Start(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// wantNext waits for a notification in which a name has a value.
func wantNext(t *testing.T, s *manager.Service, name, value string) manager.Notification {
	t.Helper()
	for {
		said, err := s.Next(patience)
		if err != nil {
			t.Fatalf("waiting for %s=%s: %v", name, value, err)
		}
		if said[name] == value {
			return said
		}
	}
}

func dial(t *testing.T, path string) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func saveNull(t *testing.T, c *client.Client, endpoint string) {
	t.Helper()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := c.SaveEndpoint(t.Context(), time.Hour, endpoint, "", file); err != nil {
		t.Fatal(err)
	}
}

func finds(t *testing.T, c *client.Client, endpoint string) bool {
	t.Helper()
	_, err := c.FindEndpoint(t.Context(), endpoint)
	if err != nil && err != client.ErrNotFound {
		t.Fatal(err)
	}
	return err == nil
}

// Sockets that were passed with the same name share a cache; those with another name, and the
// command line's, have others. systemd's stay where they are.
func TestServicePassedSockets(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	s := startService(t, manager.Config{
		Arguments: []string{"-socket", path("own"), "-ttl-limit", "1h"},
		Sockets: []manager.Socket{
			{Path: path("a"), Name: "shared"}, {Path: path("b"), Name: "other"}, {Path: path("c"), Name: "shared"},
		},
	})
	// systemd takes clients for us before we are ready.
	a := dial(t, path("a"))
	saveNull(t, a, "x")
	wantNext(t, s, "READY", "1")
	for name, want := range map[string]bool{"b": false, "own": false, "c": true} {
		if got := finds(t, dial(t, path(name)), "x"); got != want {
			t.Errorf("found through %s: %v", name, got)
		}
	}
	if err := s.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wantNext(t, s, "STOPPING", "1")
	status, log, err := s.Wait()
	if status != 0 || err != nil {
		t.Errorf("exit status %d, %v", status, err)
	}
	for _, want := range []string{
		"listening on " + path("own") + "\n",
		"listening on " + path("a") + ", passed as shared\n",
		"listening on " + path("b") + ", passed as other\n",
		"listening on " + path("c") + ", passed as shared\n",
		"]: shared: statistics: address lookup hits=1 miss=0",
		"]: other: statistics: address lookup hits=0 miss=1",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log:\n%s", want, log)
		}
	}
	for name, want := range map[string]bool{"a": true, "b": true, "c": true, "own": false} {
		if _, err := os.Lstat(path(name)); (err == nil) != want {
			t.Errorf("the socket %s: %v", name, err)
		}
	}
}

func TestServiceRefusesWhatIsPassed(t *testing.T) {
	socket := manager.Socket{Path: filepath.Join(t.TempDir(), "s"), Name: "x"}
	for _, c := range []struct {
		env    string
		status int
		log    string
	}{
		{"LISTEN_FDNAMES=x:y", 1, "error: LISTEN_FDNAMES=x:y: 2 names for 1 sockets\n"},
		{"LISTEN_FDS=", 2, "scache serve: -socket is required, unless systemd passes sockets\n"},
	} {
		s := startService(t, manager.Config{Sockets: []manager.Socket{socket}, Env: []string{c.env}})
		if status, log, err := s.Wait(); err != nil || status != c.status || !strings.HasSuffix(log, c.log) {
			t.Errorf("%s: exit status %d, log %q, %v", c.env, status, log, err)
		}
		s.Close()
		os.Remove(socket.Path)
	}
}

// The status is told when it has changed, without a watchdog, and over an abstract socket.
func TestServiceStatus(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	s := startService(t, manager.Config{
		Arguments: []string{"-ttl-limit", "1h"}, Sockets: []manager.Socket{{Path: path, Name: "x"}}, Abstract: true,
	})
	if said := wantNext(t, s, "READY", "1"); said["STATUS"] != "connections cached: 0; clients: 0" {
		t.Errorf("said %v", said)
	}
	c := dial(t, path)
	saveNull(t, c, "x")
	saveNull(t, c, "x")
	finds(t, c, "x")
	finds(t, c, "y")
	finds(t, c, "z")
	wantNext(t, s, "STATUS", "connections cached: 1; clients: 1; look-ups: 3, 33% hit")
}

// The watchdog hears from an idle service, and not from one that hangs.
func TestServiceWatchdog(t *testing.T) {
	t.Parallel()
	s := startService(t, manager.Config{
		Sockets: []manager.Socket{{Path: filepath.Join(t.TempDir(), "s"), Name: "x"}}, Watchdog: 100 * time.Millisecond,
	})
	wantNext(t, s, "READY", "1")
	for range 3 {
		wantNext(t, s, "WATCHDOG", "1")
	}
	if err := lab.Stop(limit(t), s.PID()); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	if said, err := s.Next(500 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a process that is stopped said %v, %v", said, err)
	}
	if err := s.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	wantNext(t, s, "WATCHDOG", "1")
}

// drain takes what a stopped process has said before.
func drain(t *testing.T, s *manager.Service) {
	t.Helper()
	for {
		_, err := s.Next(10 * time.Millisecond)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A manager that cannot be told is a line in the log, and no more.
func TestServiceWithoutManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := startService(t, manager.Config{
		Sockets: []manager.Socket{{Path: path, Name: "x"}}, Watchdog: 20 * time.Millisecond,
		Env: []string{"NOTIFY_SOCKET=/nowhere/to/be/found", "WATCHDOG_USEC=20000"},
	})
	c := dial(t, path)
	for range 3 {
		finds(t, c, "x")
		time.Sleep(20 * time.Millisecond)
	}
	s.Signal(unix.SIGTERM)
	status, log, err := s.Wait()
	if warnings := strings.Count(log, "warning: systemd: notify /nowhere/to/be/found: READY=1: no such file"); status != 0 || err != nil || warnings != 1 {
		t.Errorf("exit status %d, %v, log %q", status, err, log)
	}
}

// How the log looks, depending on what standard error is and on the flag.
func TestServiceLogFormats(t *testing.T) {
	const elsewhere = "JOURNAL_STREAM=1:1"
	dated := `^[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d scache\[\d+\]: `
	for _, c := range []struct {
		journal bool
		env     string
		format  string
		want    string
	}{
		{true, "X=", "auto", `^<6>version \S+ listening on .*\n$`},
		{true, "X=", "text", dated},
		{true, elsewhere, "auto", dated},
		{false, elsewhere, "auto", dated},
		{false, "X=", "auto", dated},
		{false, "X=", "journal", `^<6>version `},
		{true, "X=", "json", `^{"time":".*"}\n$`},
	} {
		path := filepath.Join(t.TempDir(), "s")
		s := startService(t, manager.Config{
			Sockets: []manager.Socket{{Path: path, Name: "x"}}, Journal: c.journal, Env: []string{c.env},
			Arguments: []string{"-log-format", c.format},
		})
		line, err := s.Line()
		if err != nil || !regexp.MustCompile(c.want).MatchString(line) {
			t.Errorf("%+v: %q, %v", c, line, err)
		}
		s.Close()
	}
	refused(t, 2, "-log-format xml: want auto, text, journal or json", "-socket", "/s", "-log-format", "xml")
}

// Every line of a log in JSON can be read, whatever clients send.
func TestServiceLogsJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := startService(t, manager.Config{
		Sockets: []manager.Socket{{Path: path, Name: `a"b\c`}}, Arguments: []string{"-log-format", "json", "-v"},
	})
	c := dial(t, path)
	c.FindEndpoint(t.Context(), "\"quoted\" \\ \n\t\x7f \xff\xfe \u2028 \u20ac")
	s.Signal(unix.SIGTERM)
	status, log, err := s.Wait()
	if status != 0 || err != nil {
		t.Fatalf("exit status %d, %v", status, err)
	}
	type entry struct {
		Time           time.Time
		Level, Message string
		Process        int
	}
	var messages []string
	for line := range strings.Lines(log) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e.Process != s.PID() || e.Level != "info" || e.Time.IsZero() || e.Time.Location() != time.UTC || !strings.HasSuffix(line, "\n") {
			t.Errorf("%+v of %s", e, line)
		}
		messages = append(messages, e.Message)
	}
	all := strings.Join(messages, "\n")
	for _, want := range []string{`passed as a"b\c`, `"\"quoted\" \\ \n\t\x7f \xff\xfe \u2028 €"`, "statistics: "} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in the log:\n%s", want, all)
		}
	}
}
