package ctl

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/scache/scache/client"
	"github.com/scache/scache/internal/lab"
	"github.com/scache/scache/proto"
)

// self accepts connections and keeps them.
var self = sync.OnceValues(func() (net.Listener, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		var kept sync.Map // what nobody refers to is closed
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			kept.Store(conn, true)
		}
	}()
	return listener, nil
})

// dialSelf returns a connection whose far end stays open.
func dialSelf(t *testing.T) *net.TCPConn {
	t.Helper()
	listener, err := self()
	must(t, err)
	conn, err := net.Dial("tcp", listener.Addr().String())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

const (
	endpointA = "smtp\n192.0.2.1\n25\n0\n"
	endpointB = "smtp\n192.0.2.2\n25\n0\n"
)

type listed struct {
	Endpoint, Destination, Property, Kind, Remote string
	Age                                           int64 `json:"age_ms"`
	Remaining                                     int64 `json:"remaining_ms"`
	Uses                                          int64
}

func TestList(t *testing.T) {
	t.Parallel()
	s := serve(t, "-ttl-limit", "60s")
	s.save("smtp\na.test\n", endpointA, 2)
	s.save("smtp\nb.test\n", endpointB, 3)

	list := fromJSON[[]listed](t, s.socket, "list")
	if len(list) != 5 {
		t.Fatalf("%d connections are listed, want 5", len(list))
	}
	listener, _ := self()
	for i, e := range list {
		want := endpointA
		if i >= 2 {
			want = endpointB
		}
		if e.Endpoint != want || e.Property != "property\n" || e.Kind != "tcp" || e.Remote != listener.Addr().String() ||
			e.Remaining <= 0 || e.Remaining+e.Age > 60_100 || e.Uses != 0 {
			t.Errorf("entry %d: %+v", i, e)
		}
	}
	if list := fromJSON[[]listed](t, s.socket, "list", "-limit", "1", "-sort", "age"); len(list) != 1 || list[0].Endpoint != endpointA {
		t.Errorf("the oldest: %+v", list)
	}
	bindings := fromJSON[[]listed](t, s.socket, "list", "bindings")
	if len(bindings) != 2 || bindings[0].Destination != "smtp\na.test\n" || bindings[0].Endpoint != endpointA {
		t.Errorf("bindings: %+v", bindings)
	}

	must(t, s.dial().SaveDestination(limit(t), 10*time.Second, "c.test", "", "y"))
	must(t, s.dial().SaveDestination(limit(t), time.Minute, "c.test", "a binding's", "x"))
	if text := s.ctl("list", "bindings", "-properties"); !strings.Contains(text, "  PROPERTY\n") || !regexp.MustCompile(` x +a binding's\n.* y\n(.*\n)+\n4 bindings\n$`).MatchString(text) {
		t.Errorf("printed\n%s", text)
	}
	text := s.ctl("list", "-limit", "3", "-properties")
	lines := strings.Split(text, "\n")
	for _, want := range []string{"AGE", "REMOTE", `smtp\n192.0.2.1\n25\n0\n`, `property\n`, "3 of 5 connections"} {
		if !strings.Contains(text, want) {
			t.Errorf("printed without %q:\n%s", want, text)
		}
	}
	// In each line the column of endpoints begins below its title.
	column := strings.Index(lines[0], "ENDPOINT")
	for _, line := range lines[1:4] {
		if len(line) < column || !strings.HasPrefix(line[column:], "smtp") {
			t.Errorf("not aligned:\n%s", text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("colours where there is no terminal")
	}
	s.ctl("flush", "all")
	if text := s.ctl("list", "-properties"); text != "0 connections\n" {
		t.Errorf("an empty cache: %q", text)
	}
}

// What cannot be printed is said to be missing.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := serve(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	for _, arguments := range [][]string{{"status"}, {"list"}, {"limits"}, {"status", "-json"}, {"list", "-json"}} {
		var stderr strings.Builder
		cmd := exec.CommandContext(limit(t), scachectl, append(arguments, "-socket", s.socket)...)
		cmd.Stdout, cmd.Stderr = full, &stderr
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "no space left on device") {
			t.Errorf("%q: %v, %q", arguments, err, stderr.String())
		}
	}
}

func TestFlush(t *testing.T) {
	t.Parallel()
	s := serve(t, "-ttl-limit", "60s")
	refill := func() {
		s.ctl("flush", "all")
		s.save("smtp\na.test\n", endpointA, 2)
		s.save("smtp\nb.test\n", endpointB, 3)
	}
	for _, c := range []struct {
		arguments             string
		connections, bindings int64
		left                  int
	}{
		{"all", 5, 2, 0},
		{`endpoint smtp\n192.0.2.1\n25\n0\n`, 2, 0, 3},
		{`endpoint smtp\n192.0.2.1\n25\n`, 0, 0, 5},
		{`destination smtp\nb.test\n`, 3, 1, 2},
		{`pattern *192.0.2.2*`, 3, 1, 2},
		{`pattern smtp?192.0.2.?\n*`, 5, 2, 0},
		{`pattern *a.test*`, 0, 1, 5},
	} {
		refill()
		done := fromJSON[map[string]int64](t, s.socket, append([]string{"flush"}, strings.Fields(c.arguments)...)...)
		if done["connections"] != c.connections || done["bindings"] != c.bindings {
			t.Errorf("flush %s: %v, want %d connections and %d bindings", c.arguments, done, c.connections, c.bindings)
		}
		if list := fromJSON[[]listed](t, s.socket, "list"); len(list) != c.left {
			t.Errorf("flush %s leaves %d, want %d", c.arguments, len(list), c.left)
		}
	}
	// A label may look like a flag.
	s.save("a", "-json", 1)
	if r := run(t, "flush", "-socket", s.socket, "endpoint", "--", "-json"); r.stdout != "closed 1 connection, dropped 0 bindings\n" {
		t.Errorf("%+v", r)
	}
	refill()
	if text := s.ctl("flush", "all"); text != "closed 5 connections, dropped 2 bindings\n" {
		t.Errorf("printed %q", text)
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	s := serve(t, "-ttl-limit", "60s")
	s.save("a", endpointA, 1)
	s.ctl("pause")
	s.save("b", endpointB, 1)
	c := s.dial()
	if _, err := c.FindEndpoint(limit(t), endpointA); err != client.ErrNotFound {
		t.Errorf("found while paused: %v", err)
	}
	if text := s.ctl("status"); !strings.Contains(text, "paused") {
		t.Errorf("status:\n%s", text)
	}
	s.ctl("resume")
	for _, c := range []struct{ command, printed string }{
		{"pause", "paused: nothing is found nor saved until \"scachectl resume\"\n"}, {"pause -json", "{\n  \"paused\": true\n}\n"},
		{"resume -json", "{\n  \"paused\": false\n}\n"}, {"resume", "caching\n"},
	} {
		if text := s.ctl(strings.Fields(c.command)...); text != c.printed {
			t.Errorf("%s printed %q", c.command, text)
		}
	}
	if _, err := c.FindEndpoint(limit(t), endpointB); err != client.ErrNotFound {
		t.Errorf("what was saved while paused is found: %v", err)
	}
	found, err := c.FindEndpoint(limit(t), endpointA)
	must(t, err)
	found.File.Close()
}

func TestLimits(t *testing.T) {
	t.Parallel()
	s := serve(t, "-ttl-limit", "60s")
	s.save("a", endpointA, 5)
	limits := fromJSON[map[string]int64](t, s.socket, "limits", "endpoint_limit=2", "connection_cache_ttl_limit=1m30s")
	if limits["connection_cache_endpoint_limit"] != 2 || limits["connection_cache_ttl_limit"] != 90 {
		t.Errorf("limits %v", limits)
	}
	s.save("a", endpointA, 5)
	if list := fromJSON[[]listed](t, s.socket, "list"); len(list) != 2 {
		t.Errorf("%d connections, want the limit of 2", len(list))
	}
	for wrong, status := range map[string]int{"nonsense=1": 2, "endpoint_limit=-1": 2, "destination_limit=0": 1} {
		if r := run(t, "limits", "size_limit=5", wrong, "-socket", s.socket); r.status != status || (status == 1) != strings.Contains(r.stderr, "is in force") {
			t.Errorf("%s: %+v", wrong, r)
		}
		const size = "connection_cache_size_limit"
		if got := fromJSON[map[string]int64](t, s.socket, "limits")[size]; (got == 5) != (status == 1) {
			t.Errorf("%s: %s is %d", wrong, size, got)
		}
		run(t, "limits", "size_limit=0", "-socket", s.socket)
	}
	// Times are as people write them; and only who changes something is told how long it lasts.
	const lasts = "in force until the process ends"
	for arguments, changed := range map[string]bool{"limits": false, "limits ttl_limit=90": true} {
		text := s.ctl(strings.Fields(arguments)...)
		if !regexp.MustCompile(`(?m)^connection_cache_ttl_limit +1m30s$`).MatchString(text) || strings.Contains(text, lasts) != changed {
			t.Errorf("%s:\n%s", arguments, text)
		}
	}
	if again := fromJSON[map[string]int64](t, s.socket, "limits"); again["connection_cache_endpoint_limit"] != 2 {
		t.Errorf("limits %v", again)
	}
}

// nobody is a user without rights.
func nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("nobody")
	must(t, err)
	uid, err := strconv.Atoi(u.Uid)
	must(t, err)
	gid, err := strconv.Atoi(u.Gid)
	must(t, err)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// Others are refused, also where they may connect, and nothing happens.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	open := serve(t, "-ttl-limit", "60s", "-mode", "0666")
	closed := serve(t, "-ttl-limit", "60s")
	for _, s := range []*server{open, closed} {
		// The directories that the testing package makes are for us alone.
		must(t, os.Chmod(strings.TrimSuffix(s.socket, "/001/s"), 0o755))
		must(t, os.Chmod(strings.TrimSuffix(s.socket, "/s"), 0o755))
	}
	open.save("a", endpointA, 1)
	for s, want := range map[*server]string{open: "obeys root and the user that it runs as", closed: "not allowed to connect"} {
		for _, command := range []string{"status", "list", "flush all", "pause", "resume", "limits", "limits endpoint_limit=1", "top -json"} {
			r := runAs(t, nobody(t), append(strings.Fields(command), "-socket", s.socket)...)
			if r.status != 4 || r.stdout != "" || !strings.Contains(r.stderr, want) {
				t.Errorf("%s: %+v, want %q", command, r, want)
			}
		}
	}
	if v := statistics(t, open.socket); v["connections"] != 1 || v["paused"] != 0 || v["admin_denied"] != 8 {
		t.Errorf("connections %d, paused %d, %d denied", v["connections"], v["paused"], v["admin_denied"])
	}
}

// While so many are cached that a list of them takes long, other clients go on, and the
// list has what is there all the time once. How long requests took, as the daemon
// has measured it, with and without the list, is in the log (go test -v).
func TestListUnderLoad(t *testing.T) {
	s := serve(t, "-ttl-limit", "10m")
	const kept = 15_000
	c, ctx := s.dial(), limit(t)
	conn := dialSelf(t)
	for i := range kept {
		must(t, c.SaveEndpoint(ctx, 10*time.Minute, "kept"+strconv.Itoa(i), "", conn))
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	for i := range 4 {
		c := s.dial()
		others.Go(func() { goOn(t, c, "busy"+strconv.Itoa(i), stop) })
	}
	defer others.Wait()
	defer close(stop)

	start := statistics(t, s.socket)
	must(t, lab.Poll(ctx, func() bool { return statistics(t, s.socket)["endpoint_hits"] > start["endpoint_hits"]+5000 }))
	quiet := statistics(t, s.socket)
	seen := map[string]int{}
	for _, e := range fromJSON[[]listed](t, s.socket, "list") {
		seen[e.Endpoint]++
	}
	for i := range kept {
		if n := seen["kept"+strconv.Itoa(i)]; n != 1 {
			t.Fatalf("entry %d is listed %d times", i, n)
		}
	}
	end := statistics(t, s.socket)
	if end["endpoint_hits"] == quiet["endpoint_hits"] {
		t.Error("nobody else was served while the list was made")
	}
	t.Logf("99%% of requests took %s without a list, and %s beside it", slowest(start, quiet), slowest(quiet, end))
}

// goOn saves and finds a connection until it is told to stop.
func goOn(t *testing.T, c *client.Client, name string, stop chan struct{}) {
	conn, ctx := dialSelf(t), limit(t)
	for {
		select {
		case <-stop:
			return
		default:
		}
		if err := c.SaveEndpoint(ctx, time.Minute, name, "", conn); err != nil {
			t.Error(err)
			return
		}
		found, err := c.FindEndpoint(ctx, name)
		if err != nil {
			t.Error(err)
			return
		}
		found.File.Close()
	}
}

// slowest is the bound that 99% of the requests between two readings kept.
func slowest(earlier, later map[string]int64) string {
	all := later["request_us_le_inf"] - earlier["request_us_le_inf"]
	for _, bound := range proto.RequestTime.Bounds {
		name := fmt.Sprintf("%s_le_%d", proto.RequestTime.Name, bound)
		if 100*(later[name]-earlier[name]) >= 99*all {
			return fmt.Sprintf("%v at most", time.Duration(bound)*time.Microsecond)
		}
	}
	return "longer than can be told"
}
