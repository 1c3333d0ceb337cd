package systemd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// As a child, this program is a service that tells what it was given.
func TestMain(m *testing.M) {
	if os.Getenv("ROLE") == "service" {
		tell()
		return
	}
	os.Exit(m.Run())
}

func tell() {
	listeners, err := Listeners()
	for _, l := range listeners {
		flags, _ := unix.FcntlInt(uintptr(l.FD), unix.F_GETFD, 0)
		fmt.Println(l.FD, l.Name, filepath.Base(l.Path), flags == unix.FD_CLOEXEC)
	}
	fmt.Println(err)
	again, err := Listeners()
	fmt.Println(len(again), err, strings.Contains(strings.Join(os.Environ(), " "), "LISTEN_"))
	interval, err := WatchdogInterval()
	_, pid := os.LookupEnv("WATCHDOG_PID")
	fmt.Println(interval, err, pid)
}

// service starts such a child: $$ in a variable is its process ID.
func service(t *testing.T, files []*os.File, variables ...string) (listeners, again, watchdog string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "export ROLE=service "+strings.Join(variables, " ")+`; exec "$0"`, os.Args[0])
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	cmd.Env = []string{"GORACE=atexit_sleep_ms=0"}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	n := len(lines) - 2
	return strings.Join(lines[:n], "\n"), lines[n], lines[n+1]
}

func TestListeners(t *testing.T) {
	dir := t.TempDir()
	type filer interface{ File() (*os.File, error) }
	file := func(f filer, err error) *os.File {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { got.Close(); f.(interface{ Close() error }).Close() })
		return got
	}
	unixListener := func(kind, name string) (*net.UnixListener, error) {
		return net.ListenUnix(kind, &net.UnixAddr{Name: filepath.Join(dir, name), Net: kind})
	}
	a, b := file(unixListener("unix", "a")), file(unixListener("unix", "b"))
	tcp := file(net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}))
	packets := file(unixListener("unixpacket", "p"))
	connected := file(net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "a"), Net: "unix"}))
	regular, err := os.Create(filepath.Join(dir, "regular"))
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()

	two := []*os.File{a, b}
	const ours = "LISTEN_PID=$$"
	for _, c := range []struct {
		files     []*os.File
		variables []string
		want      string
	}{
		{two, []string{ours, "LISTEN_FDS=2", "LISTEN_FDNAMES=one:two"}, "3 one a true\n4 two b true\n<nil>"},
		{two, []string{ours, "LISTEN_FDS=2"}, "3 unknown a true\n4 unknown b true\n<nil>"},
		{two, []string{ours, "LISTEN_FDS=2", "LISTEN_FDNAMES=:x"}, "3 unknown a true\n4 x b true\n<nil>"},
		{two, []string{ours, "LISTEN_FDS=1", "LISTEN_FDNAMES=one"}, "3 one a true\n<nil>"},
		{two, []string{ours, "LISTEN_FDS=2", "LISTEN_FDNAMES=one"}, "LISTEN_FDNAMES=one: 1 names for 2 sockets"},
		{two, []string{ours, "LISTEN_FDS=0"}, "LISTEN_FDS=0: not a number of sockets"},
		{two, []string{ours, "LISTEN_FDS=-1"}, "LISTEN_FDS=-1: not a number of sockets"},
		{two, []string{ours, "LISTEN_FDS=many"}, "LISTEN_FDS=many: not a number of sockets"},
		{two, []string{ours}, "<nil>"},
		{two, []string{"LISTEN_PID=1", "LISTEN_FDS=2"}, "<nil>"},
		{two, []string{"LISTEN_FDS=2"}, "<nil>"},
		{two, nil, "<nil>"},
		{[]*os.File{a, tcp}, []string{ours, "LISTEN_FDS=2", "LISTEN_FDNAMES=a:b"}, "descriptor 4, passed as b: not a UNIX-domain socket"},
		{[]*os.File{packets}, []string{ours, "LISTEN_FDS=1"}, "descriptor 3, passed as unknown: not a stream socket"},
		{[]*os.File{connected}, []string{ours, "LISTEN_FDS=1"}, "descriptor 3, passed as unknown: not a listening socket"},
		{[]*os.File{regular}, []string{ours, "LISTEN_FDS=1"}, "descriptor 3, passed as unknown: socket operation on non-socket"},
	} {
		got, again, _ := service(t, c.files, c.variables...)
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.variables, got, c.want)
		}
		if again != "0 <nil> false" {
			t.Errorf("%s: a second time: %s", c.variables, again)
		}
	}
}

func TestWatchdogInterval(t *testing.T) {
	for _, c := range []struct {
		variables []string
		want      string
	}{
		{nil, "0s <nil> false"},
		{[]string{"WATCHDOG_USEC=30000000"}, "30s <nil> false"},
		{[]string{"WATCHDOG_USEC=1500000", "WATCHDOG_PID=$$"}, "1.5s <nil> false"},
		{[]string{"WATCHDOG_USEC=30000000", "WATCHDOG_PID=1"}, "0s <nil> true"},
		{[]string{"WATCHDOG_USEC=0"}, "0s WATCHDOG_USEC=0: not a number of microseconds false"},
		{[]string{"WATCHDOG_USEC=soon"}, "0s WATCHDOG_USEC=soon: not a number of microseconds false"},
	} {
		if _, _, got := service(t, nil, c.variables...); got != c.want {
			t.Errorf("%s: %s, want %s", c.variables, got, c.want)
		}
	}
	t.Setenv("WATCHDOG_USEC", "9223372036854775807")
	if interval, err := WatchdogInterval(); err == nil {
		t.Errorf("an interval that does not fit: %v", interval)
	}
}

func TestNotifier(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	for _, name := range []string{path, "@" + path} {
		manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer manager.Close()
		manager.SetReadDeadline(time.Now().Add(20 * time.Second))
		t.Setenv("NOTIFY_SOCKET", name)
		n, err := NewNotifier()
		if err != nil {
			t.Fatal(err)
		}
		var before, after unix.Timespec
		said := func(err error) string {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			buffer := make([]byte, 1000)
			size, err := manager.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			return string(buffer[:size])
		}
		for _, c := range []struct{ got, want string }{
			{said(n.Ready("one")), "READY=1\nSTATUS=one"},
			{said(n.Alive("t\nw\no")), "WATCHDOG=1\nSTATUS=t w o"},
			{said(n.Stopping("three")), "STOPPING=1\nSTATUS=three"},
			{said(n.MainPID(42)), "MAINPID=42\nREADY=1"},
		} {
			if c.got != c.want {
				t.Errorf("%s: said %q, want %q", name, c.got, c.want)
			}
		}
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
		text := said(n.Reloading("four"))
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
		var moment int64
		if _, err := fmt.Sscanf(text, "RELOADING=1\nMONOTONIC_USEC=%d\nSTATUS=four", &moment); err != nil ||
			moment < before.Nano()/1000 || moment > after.Nano()/1000 {
			t.Errorf("%s: said %q (%v) between %d and %d", name, text, err, before.Nano(), after.Nano())
		}
	}
}

// A manager that does not read, or is not there, is an error, and nobody waits for it.
func TestNotifierNeverWaits(t *testing.T) {
	var nobody *Notifier
	if err := nobody.Ready("x"); err != nil {
		t.Error(err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if n, err := NewNotifier(); n != nil || err != nil {
		t.Errorf("%v, %v", n, err)
	}
	t.Setenv("NOTIFY_SOCKET", "vsock:2:1234")
	if n, err := NewNotifier(); err == nil {
		t.Errorf("%v", n)
	}
	path := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", path)
	n, err := NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ready("x"); err == nil || !strings.Contains(err.Error(), "READY=1: no such file") {
		t.Errorf("without a manager: %v", err)
	}
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	// The kernel keeps net.unix.max_dgram_qlen messages.
	for sent := 0; err == nil; sent++ {
		if err = n.Alive("x"); sent > 1e6 {
			t.Fatal("the queue is never full")
		}
	}
	if !strings.Contains(err.Error(), "resource temporarily unavailable") {
		t.Error(err)
	}
}

func TestJournalReads(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]bool{
		fmt.Sprintf("%d:%d", stat.Dev, stat.Ino):   true,
		fmt.Sprintf("%d:%d", stat.Dev, stat.Ino+1): false,
		fmt.Sprintf("%d:%d", stat.Dev+1, stat.Ino): false,
		"": false,
	} {
		t.Setenv("JOURNAL_STREAM", value)
		if got := JournalReads(int(file.Fd())); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
	if JournalReads(-1) {
		t.Error("a descriptor that is not open")
	}
}
