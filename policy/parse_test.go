package policy

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func parse(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse("file", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func match(p *Policy, l Labels) *Rule {
	r, _ := p.Match(l)
	return r
}

func TestParse(t *testing.T) {
	p := parse(t, `# a comment
destination=a.test,*.b.test ttl=30s keep=2

  # a comment between
	order=lifo
	handshake=quit
address=192.0.2.0/24,2001:db8::1 cache=no
service=lmtp keep=Unlimited order=FIFO handshake=none ttl=90
host=mx?.c.test cache=Yes
* ttl=5M
endpoint=a keep=1
endpoint=b handshake=quit`)
	want := []Rule{
		{Number: 0, Line: 2, TTL: 30 * time.Second, Keep: 2, Order: "lifo", Handshake: "quit"},
		{Number: 1, Line: 7, Decline: true},
		{Number: 2, Line: 8, TTL: 90 * time.Second, Keep: Unlimited, Order: "fifo", Handshake: "none"},
		{Number: 3, Line: 9},
		{Number: 4, Line: 10, TTL: 5 * time.Minute},
		{Number: 5, Line: 11, Keep: 1},
		{Number: 6, Line: 12, Handshake: "quit"},
	}
	texts := []string{
		"destination=a.test,*.b.test ttl=30s keep=2 order=lifo handshake=quit",
		"address=192.0.2.0/24,2001:db8::1 cache=no",
		"service=lmtp keep=Unlimited order=FIFO handshake=none ttl=90",
		"host=mx?.c.test cache=Yes",
		"* ttl=5M",
		"endpoint=a keep=1",
		"endpoint=b handshake=quit",
	}
	explained := []string{
		"for 30s at most, 2 connections per endpoint at most, the newest is used first, told QUIT when closed",
		"not cached",
		"for 1m30s at most, any number of connections per endpoint, the oldest is used first, closed without a word",
		"cached as everything else",
		"for 5m0s at most",
		"1 connection per endpoint at most",
		"told QUIT when closed",
	}
	if len(p.Rules) != len(want) {
		t.Fatalf("%d rules, want %d", len(p.Rules), len(want))
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.String() != texts[i] {
			t.Errorf("rule %d is %q, want %q", i, r, texts[i])
		}
		if r.Explain() != explained[i] {
			t.Errorf("rule %d: %q, want %q", i, r.Explain(), explained[i])
		}
		got, want := *r, want[i]
		got.conditions, got.text = nil, ""
		if got.Number != want.Number || got.Line != want.Line || got.Decline != want.Decline || got.TTL != want.TTL ||
			got.Keep != want.Keep || got.Order != want.Order || got.Handshake != want.Handshake {
			t.Errorf("rule %d is %+v, want %+v", i, got, want)
		}
	}
}

// What is wrong is said with file and line: the line of the word, where rules go on
// over several.
func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"destination=a.test":                "line 1: no option: one of cache, handshake, keep, order, ttl",
		"# one\n\nttl=5s":                   "line 3: no pattern; * is for everything",
		"* destination=a.test ttl=5s":       "line 1: * is for everything, and there are other patterns",
		"a.test ttl=5s":                     "line 1: a.test: want NAME=VALUE, or * for everything",
		"domain=a.test ttl=5s":              "line 1: domain: no such name; there are the patterns address, destination, endpoint, host, service and the options cache, handshake, keep, order, ttl",
		"* ttl=5s # why":                    "line 1: #: a comment has a line of its own",
		"* ttl=0":                           "line 1: ttl=0: want whole seconds, at least one, such as 30, 30s or 5m",
		"* ttl=1500ms":                      "line 1: ttl=1500ms: want whole seconds, at least one, such as 30, 30s or 5m",
		"* ttl=later":                       "line 1: ttl=later: want whole seconds, at least one, such as 30, 30s or 5m",
		"* ttl=":                            "line 1: ttl=: want whole seconds, at least one, such as 30, 30s or 5m",
		"* ttl=-5":                          "line 1: ttl=-5: want whole seconds, at least one, such as 30, 30s or 5m",
		"* ttl=5s\n  keep=1\n  keep=2":      "line 3: keep is given twice",
		"* ttl=0\n* ttl=5s":                 "line 1: ttl=0: want whole seconds, at least one, such as 30, 30s or 5m",
		"* ttl=5s\n* keep=0":                "line 2: keep=0: want a number, at least 1, or unlimited (cache=no keeps none)",
		"* keep=99999999999":                "line 1: keep=99999999999: want a number, at least 1, or unlimited (cache=no keeps none)",
		"* order=random":                    "line 1: order=random: want fifo or lifo",
		"* handshake=rset":                  "line 1: handshake=rset: want none or quit",
		"* cache=maybe":                     "line 1: cache=maybe: want yes or no",
		"* cache=no\n ttl=5s":               "line 1: with cache=no there is nothing that ttl, keep and order could be for",
		"* cache=no order=lifo":             "line 1: with cache=no there is nothing that ttl, keep and order could be for",
		"* cache=no keep=1":                 "line 1: with cache=no there is nothing that ttl, keep and order could be for",
		"destination=a.test,,b.test ttl=5s": "line 1: destination=a.test,,b.test: an empty pattern; there is no space beside commas",
		"destination= ttl=5s":               "line 1: destination=: an empty pattern; there is no space beside commas",
		`endpoint=a\tb ttl=5s`:              `line 1: endpoint: a\tb: behind a backslash stands n, *, ? or another one`,
		`endpoint=a\ ttl=5s`:                `line 1: endpoint: a\: behind a backslash stands n, *, ? or another one`,
		"address=192.0.2.300 ttl=5s":        "line 1: address: 192.0.2.300 is no address, and no network such as 192.0.2.0/24",
		"address=192.0.2.1/24 ttl=5s":       "line 1: address: 192.0.2.1/24 has bits behind the first 24: is 192.0.2.0/24 meant?",
		"address=::ffff:0:0/80 ttl=5s":      "line 1: address: ::ffff:0:0/80 has bits behind the first 80: is ::/80 meant?",
		"address=a.test ttl=5s":             "line 1: address: a.test is no address, and no network such as 192.0.2.0/24",
		"address=fe80::1%eth0 ttl=5s":       "line 1: address: fe80::1%eth0 is no address, and no network such as 192.0.2.0/24",
		"# one\n  * ttl=5s":                 "line 2: white space at the beginning continues a rule, and there is none",
		strings.Repeat("* ttl=5s\n", maxRules+1) + " keep=1\n": "line 1001: more than 1000 rules",
	} {
		p, err := Parse("FILE", []byte(text))
		if err == nil {
			t.Errorf("%.60q: no error: %v", text, p.Rules)
		} else if want := "FILE, " + want; err.Error() != want {
			t.Errorf("%.60q: %q, want %q", text, err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", []byte("* ttl=5s\n"))
	if p, err := Load(good); err != nil || len(p.Rules) != 1 || p.File != good {
		t.Errorf("%+v, %v", p, err)
	}
	bad := write("bad", []byte("* ttl=5s\n* ttl=x\n"))
	if _, err := Load(bad); err == nil || !strings.HasPrefix(err.Error(), bad+", line 2: ttl=x: ") {
		t.Error(err)
	}
	if p, err := Load(write("longest", append([]byte("* ttl=5s\n#"), bytes.Repeat([]byte("c"), maxFile-10)...))); err != nil || len(p.Rules) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	long := write("long", []byte(strings.Repeat("# comment\n", maxFile/10+1)))
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		pipe:         "not a regular file",
		long:         "more than 1048576 bytes",
		dir:          "not a regular file",
		"/dev/zero":  "not a regular file",
		dir + "/not": "no such file or directory",
	} {
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// An empty file is a policy without rules.
func TestNoRules(t *testing.T) {
	if p := parse(t, "# nothing yet\n"); len(p.Rules) != 0 || match(p, Labels{}) != nil {
		t.Error("there is a rule")
	}
}

func TestWarnings(t *testing.T) {
	p := parse(t, "destination=a ttl=1m\n* keep=1\ndestination=b keep=2\nhost=c ttl=30")
	got := strings.Join(p.Warnings(30*time.Second), "\n")
	want := `file, line 1: connection_cache_ttl_limit lowers ttl=1m0s to 30s
file, line 3: never used: line 2 is for everything
file, line 4: never used: line 2 is for everything`
	if got != want {
		t.Errorf("warnings\n%s\nwant\n%s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("# c\ndestination=a.test,*.b ttl=3 keep=2\n  order=lifo\naddress=::/0 cache=no\nendpoint=a\\nb* handshake=quit"), []byte("smtp\na.test\n"), []byte("host_name=x\n"), []byte("smtp\n::1\n25\n0\n"))
	f.Fuzz(func(t *testing.T, text, destination, property, endpoint []byte) {
		p, err := Parse("file", text)
		if err != nil {
			return
		}
		var lines strings.Builder
		for i := range p.Rules {
			lines.WriteString(p.Rules[i].String() + "\n")
			p.Rules[i].Explain()
		}
		// What rules print is read as the same rules, which match the same.
		again, err := Parse("file", []byte(lines.String()))
		if err != nil || len(again.Rules) != len(p.Rules) {
			t.Fatalf("%q: %d rules, %v; want %d", lines.String(), len(again.Rules), err, len(p.Rules))
		}
		labels := Labels{destination, property, endpoint}
		first, second, other := match(p, labels), match(p, labels), match(again, labels)
		searched, _ := p.search(p.view(labels))
		if first != second || first != searched || (first == nil) != (other == nil) || first != nil && first.Number != other.Number {
			t.Fatalf("%q: %v, %v, %v", text, first, second, other)
		}
	})
}
