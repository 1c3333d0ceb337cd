package deb_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
)

// life is a Postfix that runs with the system's programs while packages come and go.
type life struct {
	*lab.Lab
	patience context.Context
	sink     *lab.Sink
	place    watch
	sent     int
}

func begin(t *testing.T) *life {
	// Far more than is needed: what is asserted is never how long something took.
	patience, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	sink, err := lab.NewSink(lab.SinkConfig{})
	must(t, err)
	t.Cleanup(sink.Close)
	l, err := lab.New(lab.Config{
		InPlace: true,
		Chroot:  true,
		Main:    map[string]string{"smtp_connection_cache_destinations": "127.0.0.1"},
		Routes:  map[string]string{"a.test": "[127.0.0.1]:" + strconv.Itoa(sink.Port())},
	})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	must(t, l.Start(patience))
	return &life{Lab: l, patience: patience, sink: sink, place: watchPlace(t)}
}

// during sends mail while something happens to the packages, and asserts how many
// times that replaced the program.
func (l *life) during(t *testing.T, replaced int, change func()) {
	t.Helper()
	sent := make(chan error, 1)
	go func() { sent <- l.send() }()
	change()
	must(t, <-sent)
	if got := l.place.replaced(t); got != replaced {
		t.Errorf("%s was replaced %d times, want %d", place, got, replaced)
	}
	must(t, l.WaitDelivered(l.patience, l.sent))
}

func (l *life) send() error {
	const messages = 100
	l.sent += messages
	return l.Send(l.patience, lab.Load{User: "load" + strconv.Itoa(l.sent), Domain: "a.test", Messages: messages})
}

// wantUsed reloads, and asserts that mail is delivered through this program over
// connections that it has cached.
func (l *life) wantUsed(t *testing.T, program []byte) {
	t.Helper()
	must(t, l.Check(l.patience))
	predecessor, _ := l.ScachePID()
	must(t, l.Reload(l.patience))
	must(t, lab.Poll(l.patience, func() bool { pid, ok := l.ScachePID(); return !ok || pid != predecessor }))
	before := l.sink.Counts()
	must(t, l.send())
	must(t, l.WaitDelivered(l.patience, l.sent))
	messages, connections := l.sink.Counts().Messages-before.Messages, l.sink.Counts().Sessions-before.Sessions
	if messages < 3*connections {
		t.Errorf("%d messages took %d connections, want at least 3 messages each", messages, connections)
	}
	var pid int
	must(t, lab.Poll(l.patience, func() (running bool) { pid, running = l.ScachePID(); return running }))
	if executed := read(t, "/proc/"+strconv.Itoa(pid)+"/exe"); string(executed) != string(program) {
		t.Errorf("the cache that runs is not the program expected")
	}
}

// finish asserts that nothing was lost and nobody complained.
func (l *life) finish(t *testing.T) {
	t.Helper()
	must(t, l.Stop(l.patience))
	if got := len(l.sink.Recipients()); got != l.sent {
		t.Errorf("%d of %d messages arrived", got, l.sent)
	}
	for _, line := range l.LogLines(regexp.MustCompile(`postfix-script\[.*warning|scache.*(warning|error|fatal|panic): |throttling|disabling connection caching`)) {
		t.Error(line)
	}
}

// units lists those of systemd that the package brings.
func units(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob(first.tree + "/deploy/systemd/*.s*")
	must(t, err)
	for _, file := range files {
		names = append(names, filepath.Base(file))
	}
	return names
}

// traces lists what is on the machine by our name, and all diversions.
func traces(t *testing.T) string {
	t.Helper()
	return does(t, "find", "/usr", "/etc", "/var/lib/dpkg", "-name", "scache*") + does(t, "dpkg-divert", "--list")
}

// From the first installation to the last trace, with mail in delivery all the time.
func TestLife(t *testing.T) {
	before := traces(t)
	l := begin(t)
	l.wantUsed(t, stock)

	units := units(t)
	const configuration = "/etc/default/scache"
	t.Run("install", func(t *testing.T) {
		l.during(t, 1, func() {
			told := does(t, "apt-get", "install", "-y", first.path)
			if !strings.Contains(told, "to use it: postfix reload") {
				t.Errorf("no word on what to run:\n%s", told)
			}
		})
		wantOurs(t, first)
		l.wantUsed(t, first.program)
		for _, unit := range units {
			if got, err := command("systemctl", "--root=/", "is-enabled", unit); err == nil && got == "enabled\n" {
				t.Errorf("%s is enabled", unit)
			}
		}
		for _, unit := range units { // what an administrator may do, and purge has to undo
			does(t, "systemctl", "--root=/", "enable", unit)
		}
	})
	t.Run("upgrade", func(t *testing.T) {
		must(t, os.WriteFile(configuration, []byte("mine"), 0o644))
		l.during(t, 1, func() { does(t, "dpkg", "-i", next.path) })
		wantOurs(t, next)
		l.wantUsed(t, next.program)
	})
	t.Run("downgrade", func(t *testing.T) {
		l.during(t, 1, func() { does(t, "dpkg", "-i", first.path) })
		wantOurs(t, first)
	})
	t.Run("postfix", func(t *testing.T) {
		if postfixDeb == "" {
			t.Skip("the postfix package cannot be downloaded")
		}
		l.during(t, 0, func() { does(t, "dpkg", "-i", postfixDeb) })
		wantOurs(t, first)
		l.wantUsed(t, first.program)
	})
	t.Run("remove", func(t *testing.T) {
		if got := string(read(t, configuration)); got != "mine" {
			t.Errorf("the configuration has become %q", got)
		}
		l.during(t, 1, func() { does(t, "dpkg", "-r", "scache") })
		wantStock(t)
		l.wantUsed(t, stock)
		if got := string(read(t, configuration)); got != "mine" {
			t.Errorf("the configuration has become %q", got)
		}
	})
	t.Run("purge", func(t *testing.T) {
		l.during(t, 0, func() { does(t, "dpkg", "-P", "scache") })
		if after := traces(t); after != before {
			t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
		}
	})
	l.finish(t)
}
