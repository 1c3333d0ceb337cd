package main

import (
	"bytes"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/client"
)

// silentSocket is one on which somebody listens who never says anything.
func silentSocket(t *testing.T) string {
	t.Helper()
	path, _ := listen(t)
	return path
}

// talkingSocket is one on which somebody says something and closes.
func talkingSocket(t *testing.T, words string) string {
	t.Helper()
	path, listener := listen(t)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte(words))
			conn.Close()
		}
	}()
	return path
}

// refusedSocket is one on which nobody listens any more.
func refusedSocket(t *testing.T) string {
	t.Helper()
	path, listener := listen(t)
	listener.SetUnlinkOnClose(false)
	listener.Close()
	return path
}

func listen(t *testing.T) (path string, listener *net.UnixListener) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path, l.(*net.UnixListener)
}

// What goes wrong on the way to the cache, in words, and as an exit status.
func TestNoCache(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, path := range map[string]string{
		"no socket at":                            filepath.Join(t.TempDir(), "none"),
		"is not a socket":                         file,
		"nobody listens on":                       refusedSocket(t),
		"does not answer in time":                 silentSocket(t),
		"is not the socket of a connection cache": talkingSocket(t, "protocol\x00other\x00\x00"),
		"closed the connection":                   talkingSocket(t, "220 mail.example.com\r\n"),
	} {
		for _, command := range []string{"status", "list", "flush all", "pause", "resume", "limits", "top"} {
			arguments := append(strings.Fields(command), "-socket", path, "-timeout", "100ms")
			status, stdout, stderr := execute(t, arguments...)
			if status != exitNoCache || stdout != "" || !strings.Contains(stderr, want) || !strings.Contains(stderr, path) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%s: status %d, %q, %q; want %q", arguments, status, stdout, stderr, want)
			}
		}
	}
}

func execute(t *testing.T, arguments ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, complaints bytes.Buffer
	status = run(t.Context(), arguments, &out, &complaints)
	return status, out.String(), complaints.String()
}

func TestWrongCommandLine(t *testing.T) {
	for _, line := range []string{
		"nonsense", "status now", "list things", "list -sort colour", "-nonsense", "flush", "flush some", "flush all x", "flush endpoint",
		`flush endpoint \q`, "limits endpoint_limit", "limits endpoint_limit=few", "limits ttl_limit=soon", "top -interval 1ms", "status -socket a -socket b",
		"doctor -c", "status -timeout soon", "help nonsense",
	} {
		status, stdout, stderr := execute(t, strings.Fields(line)...)
		if status != exitUsage || stdout != "" || !strings.HasPrefix(stderr, "scachectl: ") {
			t.Errorf("%s: status %d, %q, %q", line, status, stdout, stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, line := range []string{"", "-h", "help", "-help", "--help", "help flush", "help flush endpoint", "flush -h", "-version", "--version", "completion bash", "completion zsh", "completion fish"} {
		if status, stdout, stderr := execute(t, strings.Fields(line)...); status != 0 || !strings.Contains(stdout, "scachectl") || stderr != "" {
			t.Errorf("%s: status %d, %q, %q", line, status, stdout, stderr)
		}
	}
}

func TestSocketIsFound(t *testing.T) {
	t.Setenv("SCACHE_SOCKET", "/from/the/environment")
	for want, a := range map[string]*app{"/from/the/environment": {}, "/from/the/command/line": {sockets: []string{"/from/the/command/line"}}} {
		if got, err := a.path(t.Context()); got != want || err != nil {
			t.Errorf("path %s, %v, want %s", got, err, want)
		}
	}
	t.Setenv("SCACHE_SOCKET", "")
	dir := t.TempDir()
	t.Setenv("MAIL_CONFIG", dir)
	main := filepath.Join(dir, "main.cf")
	if err := os.WriteFile(main, []byte("queue_directory = "+dir+"\nconnection_cache_service_name = keep\n"), fs.ModePerm); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Minute)
	os.Chtimes(main, past, past)
	if err := os.Mkdir(filepath.Join(dir, "private"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(dir, "private", "keep")
	if got, err := (&app{}).path(t.Context()); got != want || err != nil {
		t.Errorf("path %s, %v, want %s", got, err, want)
	}
}

func TestEscape(t *testing.T) {
	for _, label := range []string{"", "smtp\n127.0.0.1\n25\n0\n", `a\b`, `say "x"`, "\xff\x01", "grüße"} {
		text := escape(label)
		if got, err := unescape(text); got != label || err != nil || strings.ContainsAny(text, "\n\x01") {
			t.Errorf("%q is printed as %s, and read as %q, %v", label, text, got, err)
		}
	}
	// As jq prints what is JSON.
	const lines = "smtp\n127.0.0.1\n25\n0\n"
	if got, err := unescape(lines); got != lines || err != nil {
		t.Errorf("%q is read as %q, %v", lines, got, err)
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.table([]string{"NAME", "COUNT", "SHARE"}, [][]string{{"grün", "7", "-"}, {"b", "1,234", "5%"}})
	want := "NAME  COUNT  SHARE\ngrün      7      -\nb     1,234     5%\n"
	if out.String() != want {
		t.Errorf("printed\n%s", out.String())
	}
}

func TestSpan(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"850ms": 850 * time.Millisecond, "1.5s": 1480 * time.Millisecond, "42s": 42 * time.Second, "3m20s": 200 * time.Second,
		"5h12m": 5*time.Hour + 12*time.Minute, "12d03h": 12*24*time.Hour + 3*time.Hour, "0s": 0,
	} {
		if got := span(d); got != want {
			t.Errorf("%v is printed as %s, want %s", d, got, want)
		}
	}
}

func TestQuantile(t *testing.T) {
	times := requestTimes{[]client.Bucket{{Bound: 10, Count: 90}, {Bound: 100, Count: 99}, {Bound: -1, Count: 100}}, 2000}
	for q, want := range map[float64]string{0.5: "<= 10µs", 0.9: "<= 10µs", 0.91: "<= 100µs", 0.99: "<= 100µs", 1: "> 100µs"} {
		if got := times.quantileText(q); got != want {
			t.Errorf("the %v quantile is %s, want %s", q, got, want)
		}
	}
	if times.mean() != 20*time.Microsecond {
		t.Errorf("mean %v", times.mean())
	}
	if none := times.since(times); none.quantileText(0.5) != "-" || none.mean() != 0 {
		t.Errorf("of no requests: %s, %v", none.quantileText(0.5), none.mean())
	}
}

func TestRates(t *testing.T) {
	at := func(uptime, hits, misses, expired int64) client.Statistics {
		s := numbered()
		for name, value := range map[string]int64{"uptime_ms": uptime, "destination_hits": hits, "endpoint_misses": misses, "closed_expired": expired} {
			s.Values[name] = value
		}
		return s
	}
	r, ok := ratesBetween(at(1000, 10, 0, 0), at(3000, 40, 10, 4))
	ratio, some := r.hitRatio()
	if !ok || !some || r.Lookups != 20 || r.Hits != 15 || ratio != 0.75 || r.Closed["expired"] != 2 || r.Closed["taken"] != 0 {
		t.Errorf("%+v, %v, ratio %v", r, ok, ratio)
	}
	if _, ok := ratesBetween(at(3000, 0, 0, 0), at(1000, 9, 9, 9)); ok {
		t.Error("rates across a restart")
	}
	if _, ok := ratesBetween(client.Statistics{}, at(1000, 9, 9, 9)); ok {
		t.Error("rates without an earlier sample")
	}
}

func TestSorted(t *testing.T) {
	list := []client.DestinationActivity{
		{Destination: "b", Hits: 9, Misses: 1, Connections: 3},
		{Destination: "a", Hits: 1, Misses: 1, Connections: 3},
		{Destination: "c", Hits: 30, Misses: 70, Bindings: 2},
	}
	for key, want := range map[string]string{"n": "abc", "c": "abc", "e": "cab", "l": "cba", "m": "cab", "h": "bac"} {
		column := slices.IndexFunc(columns, func(c column) bool { return c.key == key })
		var got string
		for _, d := range sorted(list, column, false) {
			got += d.Destination
		}
		if got != want {
			t.Errorf("by %s: %s, want %s", key, got, want)
		}
	}
	if sorted(list, 0, true)[0].Destination != "c" {
		t.Error("not reversed")
	}
}

// What is shown stays within a list that has become shorter.
func TestTopScrollsBack(t *testing.T) {
	destinations := make([]client.DestinationActivity, 5)
	m := &top{now: sample{destinations: destinations}}
	for range 9 {
		m.key("down")
	}
	if m.offset != 4 {
		t.Errorf("scrolled to %d of 5", m.offset)
	}
	m.Update(answer{sample: sample{destinations: destinations[:2]}})
	if m.offset != 1 {
		t.Errorf("at %d of 2", m.offset)
	}
	m.Update(answer{})
	if m.offset != 0 {
		t.Errorf("at %d of none", m.offset)
	}
}
