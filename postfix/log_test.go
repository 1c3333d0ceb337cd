package postfix

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func recoverRole() {
	defer NewStderrLog(DatedText).Recover()
	var table []int
	table[len(os.Args)]++
}

// stderrRole logs into a standard error that nobody reads, until it is full.
func stderrRole() {
	var pipe [2]int
	_ = unix.Pipe2(pipe[:], 0)
	real, _ := unix.Dup(2)
	_ = unix.Dup2(pipe[1], 2)
	l := NewStderrLog(DatedText)
	for range 1000 {
		l.Infof("%s", strings.Repeat("x", 900))
	}
	lost := l.Dropped()
	buf := make([]byte, 1<<20)
	n, _ := unix.Read(pipe[0], buf)
	l.Infof("again")
	m, _ := unix.Read(pipe[0], buf[n:])
	tail := strings.Split(string(buf[n:n+m]), "\n")
	whole := strings.Count(string(buf[:n]), "\n")
	fmt.Fprintf(os.NewFile(uintptr(real), "stderr"), "%v %v %s|%s",
		whole+int(lost) == 1000, l.Dropped() == lost, textOf(tail[0]), textOf(tail[1]))
}

var header = regexp.MustCompile(`^[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d (?:mail )?\S+\[\d+\]: `)

// textOf strips date and process, and insists that they are there.
func textOf(line string) string {
	if !header.MatchString(line) {
		return "BAD HEADER: " + line
	}
	return header.ReplaceAllString(line, "")
}

// newTestLog logs to a socket of its own, with a clock that stands.
func newTestLog(t *testing.T, path string) (*Log, *time.Time) {
	t.Helper()
	now := aMoment
	l := newLog(&sink{format: postlogFormat(ident{"postfix/scache", 1}, "mail"), out: dialLogDaemon(path)})
	l.now = func() time.Time { return now }
	t.Cleanup(l.sinks[0].out.close)
	return l, &now
}

func texts(lines []string) []string {
	var out []string
	for _, line := range lines {
		out = append(out, textOf(line))
	}
	return out
}

func TestLogLines(t *testing.T) {
	path := t.TempDir() + "/log"
	c := listenDatagram(t, path)
	l, _ := newTestLog(t, path)
	l.Infof("one %d", 1)
	l.Warningf("two")
	l.Errorf("three")
	l.Infof("four\nfive")
	l.Infof("%s", strings.Repeat("y", 3000))
	wantSlice(t, "lines", texts(received(t, c)), []string{
		"one 1", "warning: two", "error: three", "four?five", strings.Repeat("y", maxText),
	})
}

// A syslogd(8) that listens on a stream gets lines that NUL bytes end.
func TestLogStream(t *testing.T) {
	path := t.TempDir() + "/log"
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	l, _ := newTestLog(t, path)
	c, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.Infof("one")
	l.Infof("two")
	l.sinks[0].out.close()
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	wantSlice(t, "lines", texts(strings.Split(strings.TrimSuffix(string(all), "\x00"), "\x00")), []string{"one", "two"})
}

// Nobody waits for a stream's listener that does not accept.
func TestLogStreamIsFull(t *testing.T) {
	path := t.TempDir() + "/log"
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	dialed := make(chan bool, 3)
	go func() {
		for range cap(dialed) {
			d := dialLogDaemon(path)
			dialed <- d.fd >= 0
			defer d.close()
		}
	}()
	for range cap(dialed) {
		select {
		case <-dialed:
		case <-time.After(20 * time.Second):
			t.Fatal("it waits")
		}
	}
}

// A full socket is waited for, while there is patience left.
func TestLogWaits(t *testing.T) {
	path := t.TempDir() + "/log"
	c := listenDatagram(t, path)
	l, now := newTestLog(t, path)
	d := l.sinks[0].out.(*logDaemon)
	d.refill = now.Add(time.Hour)
	lines := 0
	for ; l.Dropped() == 0; lines++ {
		l.Infof("%d", lines)
	}
	d.patience = time.Minute
	got := make(chan []string)
	time.AfterFunc(10*time.Millisecond, func() { got <- texts(received(t, c)) })
	l.Infof("waits")
	all := append(<-got, texts(received(t, c))...)
	wantEqual(t, "lost", l.Dropped(), 1)
	wantSlice(t, "the last", all[lines-1:], []string{"warning: 1 log lines were lost", "waits"})
	if d.patience >= time.Minute {
		t.Error("no patience was needed")
	}
}

// A full socket drops lines; the next that it takes is preceded by their number.
func TestLogFull(t *testing.T) {
	path := t.TempDir() + "/log"
	c := listenDatagram(t, path)
	l, _ := newTestLog(t, path)
	const lines = 5000 // more than any queue holds
	for i := range lines {
		l.Infof("%d", i)
	}
	lost := l.Dropped()
	if lost == 0 {
		t.Fatal("nothing lost")
	}
	got := received(t, c)
	wantEqual(t, "lines taken and lost", uint64(len(got))+lost, lines)
	l.Infof("again")
	l.Infof("more")
	wantSlice(t, "lines", texts(received(t, c)), []string{
		fmt.Sprintf("warning: %d log lines were lost", lost), "again", "more",
	})
	wantEqual(t, "lost in the end", l.Dropped(), lost)
	wantEqual(t, "next attempt to connect", l.sinks[0].out.(*logDaemon).retry, time.Time{}) // as there was none
}

// When the log daemon is restarted, its socket is another one of the same name.
func TestLogReconnects(t *testing.T) {
	path := t.TempDir() + "/log"
	c := listenDatagram(t, path)
	l, now := newTestLog(t, path)
	l.Infof("one")
	wantEqual(t, "before", len(received(t, c)), 1)
	c.Close()
	os.Remove(path)

	l.Infof("lost, and nobody there")
	c = listenDatagram(t, path)
	l.Infof("lost, since it is too early to look again")
	wantEqual(t, "too early", len(received(t, c)), 0)
	*now = now.Add(reconnectPause)
	l.Infof("two")
	l.Infof("three")
	wantSlice(t, "after", texts(received(t, c)), []string{"warning: 2 log lines were lost", "two", "three"})
}

// However often the log daemon goes away and comes back, there is one descriptor for it.
func TestLogReconnectsWithoutDescriptors(t *testing.T) {
	path := t.TempDir() + "/log"
	c := listenDatagram(t, path)
	l, now := newTestLog(t, path)
	l.Infof("one")
	before := len(sockets(t))
	const times = 5
	for range times {
		c.Close()
		os.Remove(path)
		*now = now.Add(reconnectPause)
		l.Infof("lost, and nobody there")
		c = listenDatagram(t, path)
		*now = now.Add(reconnectPause)
		l.Infof("two")
		wantSlice(t, "lines", texts(received(t, c)), []string{"warning: 1 log lines were lost", "two"})
	}
	if after := sockets(t); len(after) > before {
		t.Errorf("%d sockets were open, and now: %q", before, after)
	}
}

// sockets returns those of this process.
func sockets(t *testing.T) (all []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, _ := os.Readlink(link); strings.HasPrefix(to, "socket:") {
			all = append(all, to)
		}
	}
	return all
}

// Patience is full again after a second, and not before.
func TestLogPatience(t *testing.T) {
	path := t.TempDir() + "/log"
	listenDatagram(t, path)
	l, now := newTestLog(t, path)
	d := l.sinks[0].out.(*logDaemon)
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {0, false}, {time.Second - 1, false}, {time.Second, true}, {time.Second, false}, {3 * time.Second, true}} {
		wantEqual(t, fmt.Sprint("room after ", c.after), d.hasRoom(now.Add(c.after)), c.want)
		d.patience = 0
	}
}

func TestLogAppearsLater(t *testing.T) {
	path := t.TempDir() + "/log"
	l, _ := newTestLog(t, path)
	c := listenDatagram(t, path)
	l.Infof("one")
	wantSlice(t, "lines", texts(received(t, c)), []string{"one"})
	wantEqual(t, "dropped", l.Dropped(), 0)
}

// Each sink counts for itself, and a new main sink goes on counting.
func TestLogSinkChange(t *testing.T) {
	dir := t.TempDir()
	l, _ := newTestLog(t, dir+"/nobody")
	l.Infof("lost")
	c := listenDatagram(t, dir+"/log")
	l.setMain(&sink{format: postlogFormat(ident{"x/scache", 1}, "mail"), out: dialLogDaemon(dir + "/log")}, true)
	l.Infof("gr\u00fcn")
	wantSlice(t, "lines", texts(received(t, c)), []string{"warning: 1 log lines were lost", "gr\u00fcn"})
	wantEqual(t, "dropped", l.Dropped(), 1)
}

func TestEnterRoot(t *testing.T) {
	for path, want := range map[string]string{
		"/var/spool/postfix/public/postlog": "/public/postlog",
		"/dev/log":                          "/dev/log",
		"/var/spool/postfix2/log":           "/var/spool/postfix2/log",
	} {
		d := &logDaemon{path: path, fd: -1}
		d.enterRoot("/var/spool/postfix")
		wantEqual(t, path, d.path, want)
	}
}

func TestLogAllocations(t *testing.T) {
	path := t.TempDir() + "/log"
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	l, _ := newTestLog(t, path)
	l.Infof("grow the buffers")
	buf := make([]byte, 1000)
	n := testing.AllocsPerRun(100, func() {
		_, _ = unix.Read(fd, buf)
		l.Infof("a line")
	})
	wantEqual(t, "allocations a line", n, 0)
	wantEqual(t, "dropped", l.Dropped(), 0)
}

func TestStderr(t *testing.T) {
	out, status := role(t, "stderr")
	wantEqual(t, "status", status, 0)
	count := regexp.MustCompile(`\d+ log`)
	wantEqual(t, "summary", count.ReplaceAllString(out, "N log"), "true true warning: N log lines were lost|again")
}

func TestFatalAndPanic(t *testing.T) {
	for _, c := range []struct {
		role   string
		status int
		want   string
	}{
		{"fatal", 1, "fatal: out of luck"},
		{"panic", 2, "panic: should not happen"},
		{"recover", 2, "panic: postfix/log_test.go:"},
	} {
		t.Run(c.role, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			out, status := role(t, c.role)
			wantEqual(t, "status", status, c.status)
			if time.Since(began) < fatalPause {
				t.Error("no pause")
			}
			if got := textOf(strings.TrimSuffix(out, "\n")); !strings.HasPrefix(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
