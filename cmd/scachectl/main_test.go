package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/lipgloss"

	"github.com/scache/scache/client"
	"github.com/scache/scache/proto"
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

func listen(t testing.TB) (path string, listener *net.UnixListener) {
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
	const silent = "does not answer in time"
	for want, path := range map[string]string{
		"no socket at":      filepath.Join(t.TempDir(), "none"),
		"is not a socket":   file,
		"nobody listens on": refusedSocket(t),
		silent:              silentSocket(t),
		"is not the socket of a connection cache": talkingSocket(t, "protocol\x00other\x00\x00"),
		"closed the connection":                   talkingSocket(t, "220 mail.example.com\r\n"),
	} {
		timeout := "1m"
		if want == silent {
			timeout = "100ms"
		}
		for _, command := range []string{"status", "list", "flush all", "pause", "resume", "limits", "top"} {
			arguments := append(strings.Fields(command), "-socket", path, "-timeout", timeout)
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
		"doctor -c", "status -timeout soon", "help nonsense", "status -timeout 0s", "status -socket=", "limits -socket=", "doctor -socket s",
		"list -limit=-1", "top -count=-1", "completion", "flush endpoint a\xffb",
		"exporter -socket=", "exporter -socket a -socket=", "top -socket=", "exporter -listen=", "exporter -listen=:", "exporter -listen=localhost:", "exporter -listen=9090", "doctor -config=",
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

// A shell completes names of files only where one can stand.
func TestCompletionOfFiles(t *testing.T) {
	for line, want := range map[string]string{
		"status|": ":4\n", "list|connections|": ":4\n", "doctor|x": ":4\n", "top|--interval|": ":4\n", "exporter|--listen|": ":4\n",
		"status|--socket|": ":0\n", "exporter|-socket|": ":0\n", "doctor|--config|": ":16\n", "list|--sort|": "label\nage\nremaining\n:4\n",
	} {
		if status, stdout, _ := execute(t, append([]string{"__complete"}, strings.Split(line, "|")...)...); status != 0 || stdout != want {
			t.Errorf("%s: status %d, %q, want %q", line, status, stdout, want)
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

// A list is by label, or has what is oldest first, or what expires first; and then by label.
func TestListOrder(t *testing.T) {
	name := func(text string) []string { return []string{text} }
	for order, want := range map[string]string{"label": "qprs", "age": "sprq", "remaining": "sqrp"} {
		entries := []entry{
			{"b", 2, 5, name("r"), nil}, {"a", 2, 7, name("p"), nil}, {"c", 3, 4, name("s"), nil}, {"a", 1, 5, name("q"), nil},
		}
		slices.SortFunc(entries, func(x, y entry) int { return compare(order, &x, &y) })
		var got string
		for _, e := range entries {
			got += e.row[0]
		}
		if got != want {
			t.Errorf("by %s: %s, want %s", order, got, want)
		}
	}
}

// A list may take long: the time limit is for each part of it.
func TestLongList(t *testing.T) {
	t.Parallel()
	path, listener := listen(t)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, proto.Announcement)
		conn.Read(make([]byte, 1<<10)) // what is asked for
		io.WriteString(conn, "status\x000\x00\x00")
		for range 6 {
			time.Sleep(200 * time.Millisecond)
			io.WriteString(conn, "connection\x00x\x00\x00")
		}
		io.WriteString(conn, "\x00")
		conn.Read(make([]byte, 1))
	}()
	status, stdout, stderr := execute(t, "list", "-timeout", "1s", "-socket", path)
	if status != 0 || !strings.HasSuffix(stdout, "\n6 connections\n") {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}

func TestStatus(t *testing.T) {
	var out bytes.Buffer
	a := &app{screen: newScreen(&out)}
	a.printStatus(client.Statistics{Version: "1.2.3", Cache: "/run/s", Values: map[string]int64{
		"uptime_ms": 90_000, "destination_hits": 3, "destination_misses": 1, "endpoint_misses": 1234,
		"connections": 4, "connections_peak": 50, "connection_limit": 600, "clients": 7, "clients_peak": 8, "bindings": 9, "endpoints": 10,
		"destinations": 11, "descriptors": 12, "descriptor_limit": 1300, "text_bytes": 2048, "client_memory_bytes": -1,
		"connections_saved": 40, "connections_declined": 5, "closed_taken": 30, "closed_hung_up": 2, "log_lines_lost": 1, "warnings_suppressed": 2000, "requests": 100,
		"request_us_le_10": 50, "request_us_le_25": 98, "request_us_le_50": 100, "request_us_le_inf": 100, "request_us_sum": 1250, "longest_turn_us": 1500,
	}})
	want := `scache 1.2.3 /run/s, up 1m30s, caching

LOOK-UPS        HITS  MISSES  SUCCESS
by destination     3       1      75%
by endpoint        0   1,234       0%

NOW                      COUNT  PEAK     OF
connections                  4    50    600
clients                      7     8
bindings                     9
endpoints                   10
destinations                11
open files                  12        1,300
labels and properties  2.0 KiB
kept for clients           0 B

SAVED, AND LEFT  40
taken            30  75%
hung up           2   5%

requests 100: mean 12µs, half <= 10µs, 99% <= 50µs; longest turn 1.5ms
5 connections not kept: the policy says cache=no
1 line that the log did not take
2,000 warnings not logged
`
	if out.String() != want {
		t.Errorf("printed\n%s", out.String())
	}
}

// What cannot be printed is said to be missing, also where there would be something else to say.
func TestFullDisk(t *testing.T) {
	t.Setenv("MAIL_CONFIG", configuration(t, "smtp_connection_cache_on_demand = no"))
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, command := range []string{"--help", "doctor"} {
		var stderr bytes.Buffer
		if status := run(t.Context(), []string{command}, full, &stderr); status != exitFailed || !strings.Contains(stderr.String(), "no space left on device") {
			t.Errorf("%s: status %d, %q", command, status, stderr.String())
		}
	}
}

// configuration is a directory with a small Postfix instance, and these lines in main.cf.
func configuration(t *testing.T, lines string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{
		"main.cf":   "compatibility_level = 3.6\nqueue_directory = " + dir + "\nmaillog_file = /dev/stdout\n" + lines + "\n",
		"master.cf": "smtp unix - - n - - smtp\nscache unix - - n - 1 scache\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-time.Minute) // Postfix programs wait until it is two seconds old
	os.Chtimes(filepath.Join(dir, "main.cf"), past, past)
	return dir
}

// Doctor's status tells of an error or a warning, and its commands are for the instance wherever they are copied to.
func TestDoctor(t *testing.T) {
	const idle = "note     scache: nobody listens on "
	const trickle = "note     smtp: connections are cached on demand only\n"
	for _, c := range []struct {
		main   string
		status int
		want   []string // in this order
	}{
		{"smtp_connection_cache_on_demand = no", 1, []string{
			"error    smtp: smtp_connection_cache_on_demand is off, and smtp_connection_cache_destinations is empty\n         Nothing tells",
			"\n         postconf -c DIR -e 'smtp_connection_cache_on_demand = yes'\n", idle,
			"\n\n1 error, 0 warnings, 1 note. Each command is a suggestion; changes take effect with \"postfix -c DIR reload\".\n"}},
		{"smtp_connection_reuse_count_limit = 3", 1, []string{"warning  smtp: smtp_connection_reuse_count_limit is 3\n", "0 errors, 1 warning, 2 notes. Each"}},
		{"", 0, []string{trickle, idle, "\n\n0 errors, 0 warnings, 2 notes.\n"}},
	} {
		dir := configuration(t, c.main)
		t.Chdir(dir)
		status, stdout, stderr := execute(t, "doctor", "-c", ".")
		if status != c.status || stderr != "" || !strings.HasPrefix(stdout, "Postfix ") || !strings.Contains(strings.SplitN(stdout, "\n", 2)[0], dir) {
			t.Errorf("%s: status %d, %q\n%s", c.main, status, stderr, stdout)
		}
		rest := stdout
		for _, want := range c.want {
			var found bool
			if _, rest, found = strings.Cut(rest, strings.ReplaceAll(want, "DIR", dir)); !found {
				t.Errorf("%s: no %q, or not there, in\n%s", c.main, want, stdout)
			}
		}
	}
}

// MAIL_CONFIG is doctor's alone: where its commands are copied to it may be another, or none.
func TestDoctorOfTheEnvironment(t *testing.T) {
	dir := configuration(t, "smtp_connection_cache_on_demand = no")
	t.Setenv("MAIL_CONFIG", dir)
	want := "\n         postconf -c " + dir + " -e 'smtp_connection_cache_on_demand = yes'\n"
	if _, stdout, stderr := execute(t, "doctor"); stderr != "" || !strings.Contains(stdout, want) {
		t.Errorf("no %q in\n%s%s", want, stdout, stderr)
	}
	other := configuration(t, "")
	if _, stdout, _ := execute(t, "doctor", "-c", other); strings.Contains(stdout, dir) || !strings.Contains(stdout, other) {
		t.Errorf("not about %s:\n%s", other, stdout)
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.table([]string{"NAME", "COUNT", "SHARE", "REMOTE", "LABEL"},
		[][]string{{"grün", "7", "-", "192.0.2.1:25", `24h\nx`}, {"b", "1,234", "5%", "192.0.2.10:25", `7\n`}})
	want := "NAME  COUNT  SHARE  REMOTE         LABEL\ngrün      7      -  192.0.2.1:25   24h\\nx\nb     1,234     5%  192.0.2.10:25  7\\n\n"
	if out.String() != want {
		t.Errorf("printed\n%s", out.String())
	}
}

// Text is broken at the edge of a terminal, and nowhere else.
func TestWrap(t *testing.T) {
	const text = "connections are cached on demand only"
	for width, want := range map[int][]string{0: {text}, 29: {"connections are", "cached on demand", "only"}, 46: {text}} {
		s := screen{width: width}
		if got := s.wrap(9, text); !slices.Equal(got, want) {
			t.Errorf("in %d columns: %q, want %q", width, got, want)
		}
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
	if few := (requestTimes{[]client.Bucket{{Bound: 10, Count: 1}, {Bound: 100, Count: 3}, {Bound: -1, Count: 3}}, 0}); few.quantileText(0.5) != "<= 100µs" {
		t.Errorf("half of three are in %s", few.quantileText(0.5))
	}
	// Of a server that has other buckets, as one that has taken over, all that it has counted is shown.
	if all := times.since(requestTimes{times.buckets[1:], 9}); !slices.Equal(all.buckets, times.buckets) || all.sum != times.sum {
		t.Errorf("%+v", all)
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
	fewer := at(9000, 0, 0, 0) // it has been there for longer than the other one was
	fewer.Values["requests"] = 0
	if _, ok := ratesBetween(at(1000, 0, 0, 0), fewer); ok {
		t.Error("rates across a restart, of a server that did less")
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

// display is what top shows in a window of this size, without the blanks at the ends of lines.
func display(m *top, width, height int) string {
	m.width, m.height = width, height
	return regexp.MustCompile(` +(\n|$)`).ReplaceAllString(m.View(), "$1")
}

func TestTopShows(t *testing.T) {
	m := &top{screen: newScreen(&bytes.Buffer{}), feed: &feed{path: "/run/s"}, sortBy: sortAtFirst}
	take := func(uptime, hits, misses, taken int64) {
		m.Update(answer{sample: sample{
			client.Statistics{Version: "1.2.3", Values: map[string]int64{
				"uptime_ms": uptime, "destination_hits": hits, "destination_misses": misses, "connections_saved": 2 * hits, "requests": 10 * hits,
				"closed_taken": taken, "closed_hung_up": 1, "connections": 1234, "connection_limit": 5000, "endpoints": 6, "clients": 7,
				"request_us_le_10": hits, "request_us_le_25": 2 * hits, "request_us_le_inf": 2 * hits, "request_us_sum": 24 * hits, "longest_turn_us": 1500,
			}},
			[]client.DestinationActivity{{Destination: "idle", Bindings: 2}, {Destination: "smtp\n" + strings.Repeat("x", 30) + "\n", Hits: 1.6, Misses: 1, Connections: 3}, {Destination: "busy", Hits: 8}},
		}})
	}
	take(10_000, 100, 0, 50)
	if text := display(m, 80, 12); !strings.Contains(text, "look-ups  -         found     -         saves     -         requests  -\n") || !strings.Contains(text, "taken -  hung up -\n") {
		t.Errorf("rates of no interval:\n%s", text)
	}
	take(12_000, 105, 5, 53)
	take(14_000, 105, 5, 53)
	take(16_000, 109, 5, 54)
	want := `scache 1.2.3  /run/s  up 16s  caching

look-ups  2/s       found     100%      saves     4/s       requests  20/s
latency   12µs      half      <= 10µs   99%       <= 25µs   longest   1.5ms
cached    1,234     of        5,000     endpoints 6         clients   7
left      taken 1/s  hung up 0/s
hit ratio ▅ █

DESTINATION                   CACHED  ENDPOINTS  LOOK-UPS▼     MISSES  HIT RATIO
busy                               0          0          8          0       100%
smtp\nxxxxxxxxxxxxxxxxx…           3          0          3          1        62%
q quit  space stop  r reverse  sort: Name Cached Endpoints Look-ups Misses Hit r`
	if text := display(m, 80, 12); text != want {
		t.Errorf("shown\n%s", text)
	}
	// The other way round, and from A to Z; there is room for all.
	m.key("r")
	if text := display(m, 80, 15); !strings.Contains(text, "LOOK-UPS▲") || strings.Count(text, "\n") != 14 || !strings.Contains(text, "\nidle                               0          2          0          0          -\nsmtp") {
		t.Errorf("reversed:\n%s", text)
	}
	m.key("n")
	if text := display(m, 80, 15); !strings.Contains(text, "DESTINATION▲") || !strings.Contains(text, "\nbusy") {
		t.Errorf("by name:\n%s", text)
	}
}

// The screen has no more lines and columns than there is room for, whatever is to be shown.
func TestTopFits(t *testing.T) {
	const odd = "/x\n\xff\x1b[2J"
	for width := 1; width < 100; width += 3 {
		for height := 1; height < 14; height++ {
			m := &top{screen: newScreen(io.Discard), feed: &feed{path: odd}, width: width, height: height, ratios: []float64{0, -1, 0.5, 1}}
			m.now.statistics.Values = map[string]int64{"closed_taken": 1}
			m.now.destinations = []client.DestinationActivity{{Destination: odd, Connections: 1e12}, {Destination: strings.Repeat("世", 50)}}
			if height%2 == 0 {
				m.trouble = errors.New("no socket at " + odd)
			}
			lines := strings.Split(m.View(), "\n")
			if len(lines) != height {
				t.Fatalf("%d lines in %d: %q", len(lines), height, lines)
			}
			for _, line := range lines {
				if lipgloss.Width(line) > width || strings.Contains(line, "[2J") && !strings.Contains(line, `\x1b[2J`) {
					t.Fatalf("%d columns: %q", width, line)
				}
			}
		}
	}
}

// Space stops the display and starts it again; what is wrong is told all the same.
func TestTopStops(t *testing.T) {
	m := &top{screen: newScreen(&bytes.Buffer{}), feed: &feed{}}
	at := func(uptime int64) answer {
		return answer{sample: sample{statistics: client.Statistics{Values: map[string]int64{"uptime_ms": uptime}}}}
	}
	m.Update(at(1000))
	m.key(" ")
	m.Update(at(2000))
	if text := display(m, 80, 12); !strings.Contains(text, "up 1s") || !strings.HasSuffix(text, "\nstopped: space goes on") {
		t.Errorf("stopped:\n%s", text)
	}
	m.Update(answer{err: errors.New("gone")})
	if text := display(m, 80, 12); !strings.Contains(text, "LOST") || !strings.HasSuffix(text, "\ngone") {
		t.Errorf("stopped, and without a server:\n%s", text)
	}
	m.key(" ")
	m.Update(at(3000))
	if text := display(m, 80, 12); !strings.Contains(text, "up 3s  caching") || strings.Contains(text, "stopped") {
		t.Errorf("going on:\n%s", text)
	}
}

// Another column is sorted by in its own direction, from its first row on; behind the last comes the first.
func TestTopSorts(t *testing.T) {
	m := &top{now: sample{destinations: make([]client.DestinationActivity, 5)}}
	m.key("down")
	m.key("r")
	m.key(">")
	if m.sortBy != 1 || m.reverse || m.offset != 0 {
		t.Errorf("sorted by %d, reversed: %v, from %d on", m.sortBy, m.reverse, m.offset)
	}
	for range len(columns) - 1 {
		m.key(">")
	}
	if m.sortBy != 0 {
		t.Errorf("behind the last: %d", m.sortBy)
	}
	if m.key("<"); m.sortBy != len(columns)-1 {
		t.Errorf("before the first: %d", m.sortBy)
	}
}

func TestBars(t *testing.T) {
	ratios := []float64{1, 0, 0.124, 0.125, 0.5, -1, 0.99, 1}
	for width, want := range map[int]string{100: "█▁▁▂▅ ██", 8: "█▁▁▂▅ ██", 3: " ██", 0: "", -5: ""} {
		if got := bars(ratios, width); got != want {
			t.Errorf("in %d columns: %q, want %q", width, got, want)
		}
	}
}
