package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/cmd/scachectl/postconf"
	"github.com/scache/scache/internal/lab"
)

var ours string // this project's scache

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "doctor")
	if err != nil {
		panic(err)
	}
	if ours, err = lab.Build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// instance makes a configuration of Debian's master.cf, edited, and of a main.cf.
func instance(t *testing.T, main string, edits ...edit) postconf.Instance {
	t.Helper()
	dir := t.TempDir()
	master, err := os.ReadFile("/usr/share/postfix/master.cf.dist")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(master), "__CHROOT__", "y")
	for _, e := range edits {
		edited := regexp.MustCompile(`(?m)`+e.from).ReplaceAllString(text, e.to)
		if edited == text {
			t.Fatalf("nothing in master.cf matches %s", e.from)
		}
		text = edited
	}
	main = fmt.Sprintf("compatibility_level = 3.6\nqueue_directory = %s\nmaillog_file = %[1]s/log\n%s\n", dir, main)
	for name, text := range map[string]string{"main.cf": main, "master.cf": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	i := postconf.Instance{Directory: dir}
	age(t, i)
	return i
}

// age dates main.cf back: Postfix programs wait until it is two seconds old.
func age(t *testing.T, i postconf.Instance) {
	t.Helper()
	past := time.Now().Add(-time.Minute)
	if err := os.Chtimes(filepath.Join(i.Directory, "main.cf"), past, past); err != nil {
		t.Fatal(err)
	}
}

// edit replaces what a regular expression matches in master.cf.
type edit struct{ from, to string }

// withOurs is main.cf's line for a daemon_directory in which scache is ours.
func withOurs() string { return "daemon_directory = " + filepath.Dir(ours) + "\n" }

// diagnose returns the findings by rule.
func diagnose(t *testing.T, i postconf.Instance) map[string]Finding {
	t.Helper()
	s, err := Read(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	findings := map[string]Finding{}
	for _, f := range Diagnose(s) {
		findings[f.Rule] = f
	}
	return findings
}

const (
	scacheLine = `^scache .*$`
	relayLine  = `^(relay +unix .*)$`
)

// Each rule, with what sets it off; whose fix, carried out, ends it.
var cases = []struct {
	name     string
	rule     string
	severity Severity
	main     string
	edits    []edit
	services string // that the finding is about
	fix      string // in the command
}{
	{"nothing says to cache", "never-cached", Error, "smtp_connection_cache_on_demand = no", nil, "smtp relay", "-e 'smtp_connection_cache_on_demand = yes'"},
	{"one service overrides", "never-cached", Error, "",
		[]edit{{relayLine, "$1\n  -o smtp_connection_cache_on_demand=no"}}, "relay", "-P relay/unix/smtp_connection_cache_on_demand=yes"},
	{"lmtp", "never-cached", Error, "lmtp_connection_cache_on_demand = no", nil, "lmtp", "-e 'lmtp_connection_cache_on_demand = yes'"},
	{"on demand", "on-demand-only", Note, "relayhost = [mail.example.com]:587, [mail.example.com]:465\nlmtp_connection_cache_destinations = static:all", nil,
		"smtp relay", "'smtp_connection_cache_destinations = mail.example.com'"},
	{"brackets and port", "unmatchable-destination", Error,
		"relayhost = [mail.example.com]:587\nsmtp_connection_cache_destinations = example.org $relayhost, example.net:26 static:x", nil,
		"smtp relay", "= example.org, mail.example.com, example.net, static:x'"},
	{"IPv6 addresses", "unmatchable-destination", Error,
		"smtp_connection_cache_destinations = [2001:db8::1]:25 2001:db8::2 [192.0.2.7] static:x", nil,
		"smtp relay", "= 192.0.2.7, static:x'"},
	{"list without the transport's next hop", "relay-not-listed", Warning,
		"relayhost = [gw.example]:587\ndefault_transport = smtp:[other.example]\nrelay_transport = error:no\nsmtp_connection_cache_destinations = example.org", nil,
		"smtp", "= example.org, other.example'"},
	{"list without the relay host", "relay-not-listed", Warning, "relayhost = [mail.example.com]:587\nsmtp_connection_cache_destinations = example.org", nil,
		"smtp relay", "= example.org, mail.example.com'"},
	{"list without two next hops", "relay-not-listed", Warning,
		"relayhost = [gw.example]:587\ndefault_transport = smtp:[other.example]\nsmtp_connection_cache_destinations = example.org", nil,
		"smtp relay", "= example.org, other.example, gw.example'"},
	{"on demand to two next hops", "on-demand-only", Note,
		"relayhost = [gw.example]:587\ndefault_transport = smtp:[other.example]\nlmtp_connection_cache_destinations = static:all", nil,
		"smtp relay", "= other.example, gw.example'"},
	{"list without LMTP's next hop", "relay-not-listed", Warning,
		"default_transport = lmtp:inet:[store.example]:24\nlmtp_connection_cache_destinations = example.org", nil,
		"lmtp", "= example.org, store.example'"},
	{"limit below what is asked", "lowered-time-to-live", Warning, "smtp_connection_cache_time_limit = 1m", nil,
		"smtp relay", "-e 'connection_cache_ttl_limit = 60s'"},
	{"limit below what two ask", "lowered-time-to-live", Warning, "smtp_connection_cache_time_limit = 5m\nlmtp_connection_cache_time_limit = 1m", nil,
		"lmtp", "-e 'connection_cache_ttl_limit = 300s'"},
	{"limit on the line of scache", "lowered-time-to-live", Warning, "smtp_connection_cache_time_limit = 1m\nconnection_cache_ttl_limit = 1h",
		[]edit{{`^scache .*$`, "$0\n  -o connection_cache_ttl_limit=5"}}, "smtp relay", "-P scache/unix/connection_cache_ttl_limit=60s"},
	{"count", "few-uses", Warning, "smtp_connection_reuse_count_limit = 3", nil, "smtp relay", "smtp_connection_reuse_count_limit = 0"},
	{"time", "brief-use", Warning, "smtp_connection_reuse_time_limit = 5s", nil, "smtp relay", "smtp_connection_reuse_time_limit = 300s"},
	{"opportunistic TLS", "tls-not-reused", Warning, "smtp_tls_security_level = may", nil, "smtp relay", "smtp_tls_connection_reuse = yes"},
	{"TLS of old", "tls-not-reused", Warning, "smtp_use_tls = yes", nil, "smtp relay", "smtp_tls_connection_reuse = yes"},
	{"TLS by policy", "tls-not-reused", Warning, "smtp_tls_policy_maps = inline:{a.test=encrypt}", nil, "smtp relay", "smtp_tls_connection_reuse = yes"},
	{"mandatory TLS", "tls-not-reused", Error, "", []edit{{relayLine, "$1 -o smtp_tls_security_level=encrypt"}}, "relay", "smtp_tls_connection_reuse = yes"},
	{"tlsproxy commented out", "no-tlsproxy", Error, "smtp_tls_security_level = may\nsmtp_tls_connection_reuse = yes", nil,
		"smtp relay", "-M 'tlsproxy/unix=tlsproxy unix - - y - 0 tlsproxy'"},
	{"tlsproxy without a level", "tlsproxy-without-level", Error, "smtp_tls_connection_reuse = yes",
		[]edit{{`^#tlsproxy`, "tlsproxy"}, {relayLine, "$1 -o smtp_tls_security_level=may"}}, "relay", "-e 'tlsproxy_client_security_level = may'"},
	{"tlsproxy told to have none", "tlsproxy-without-level", Error, "smtp_tls_connection_reuse = yes\nsmtp_tls_security_level = none",
		[]edit{{`^#tlsproxy`, "tlsproxy"}, {relayLine, "$1 -o smtp_tls_security_level=may"}}, "relay", "-e 'tlsproxy_client_security_level = may'"},
	{"SASL by sender", "by-sender", Warning,
		"smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = static:u:p\nsmtp_sender_dependent_authentication = yes", nil,
		"smtp relay", "smtp_sender_dependent_authentication = no"},
	{"no line", "no-cache-service", Error, "", []edit{{scacheLine, ""}}, "smtp relay lmtp", "-M 'scache/unix=scache unix - - y - 1 scache'"},
	{"another name", "no-cache-service", Error, "connection_cache_service_name = conncache", nil, "smtp relay lmtp", "conncache/unix="},
	{"of another container", "no-cache-service", Error, "connection_cache_service_name = shared/socket", nil, "smtp relay lmtp", ""},
	{"process limit by default", "process-limit", Error, "", []edit{{scacheLine, "scache unix - - y - - scache"}}, "scache", "-F scache/unix/process_limit=1"},
	{"process limit", "process-limit", Error, "", []edit{{scacheLine, "scache unix - - y - 5 scache"}}, "scache", "-F scache/unix/process_limit=1"},
	{"public", "not-private", Error, "", []edit{{scacheLine, "scache unix n - y - 1 scache"}}, "scache", "-F scache/unix/private=y"},
	{"no program", "no-program", Error, "", []edit{{scacheLine, "scache unix - - y - 1 scache-go -v"}}, "scache", "-F 'scache/unix/command=scache -v'"},
	{"stock does not know", "unknown-to-stock", Warning, "connection_cache_size_limit = 5", nil, "scache", ""},
	{"misspelt in main.cf", "unknown-parameter", Warning, "connection_cache_endpont_limit = 2", nil, "", ""},
	{"misspelt in master.cf", "unknown-parameter", Warning, "", []edit{{scacheLine, "$0\n  -o connection_cache_endpont_limit=2"}}, "scache", ""},
	{"few for a destination", "few-per-endpoint", Note, "connection_cache_endpoint_limit = 2\nrelay_destination_concurrency_limit = 1", nil,
		"smtp lmtp", "connection_cache_endpoint_limit = 20"},
	{"few for destinations of two", "few-per-endpoint", Note, "connection_cache_endpoint_limit = 2\nsmtp_destination_concurrency_limit = 50\nrelay_destination_concurrency_limit = 1", nil,
		"lmtp", "connection_cache_endpoint_limit = 50"},
	{"few in all", "few-in-all", Warning, "connection_cache_size_limit = 20", nil, "smtp relay lmtp", "connection_cache_size_limit = 0"},
	{"Postfix does not run", "socket", Note, "", nil, "scache", ""},
}

func TestRules(t *testing.T) {
	// TestLog, TestParameters, TestPolicy and, in test/ctl, TestDoctorOfOurs.
	tried := map[string]bool{"gave-up": true, "throttled": true, "logged-time-to-live": true, "nothing-reused": true, "not-in-force": true,
		"policy-mistake": true, "policy-oddity": true, "parameter-mistake": true, "paused": true}
	for _, c := range cases {
		tried[c.rule] = true
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			main := c.main
			if c.rule == "few-per-endpoint" || c.rule == "few-in-all" {
				main += "\n" + withOurs()
			}
			i := instance(t, main, c.edits...)
			f, found := diagnose(t, i)[c.rule]
			if !found {
				t.Fatalf("no finding: %v", diagnose(t, i))
			}
			if f.Severity != c.severity || strings.Join(f.Services, " ") != c.services || f.Text == "" || f.Why == "" {
				t.Errorf("found %+v", f)
			}
			if !strings.Contains(strings.Join(f.Fix, "\n"), c.fix) {
				t.Errorf("fix %q, want %q", f.Fix, c.fix)
			}
			if len(f.Fix) == 0 {
				return
			}
			carryOut(t, f)
			age(t, i)
			if f, found := diagnose(t, i)[c.rule]; found {
				t.Errorf("still there after its fix: %+v", f)
			}
		})
	}
	for _, rule := range ruleNames(t) {
		if !tried[rule] {
			t.Errorf("rule %s has no test", rule)
		}
	}
}

// carryOut runs the commands of a finding, as somebody would who copies them.
func carryOut(t *testing.T, f Finding) {
	t.Helper()
	for _, command := range f.Fix {
		cmd := exec.Command("/bin/sh", "-c", command)
		cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
}

// ruleNames are those in the sources.
func ruleNames(t *testing.T) (names []string) {
	t.Helper()
	files, _ := filepath.Glob("*.go")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range regexp.MustCompile(`(?:finding\(|Finding\{|Rule: )"([a-z-]+)"`).FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// A configuration without flaw has no findings but that Postfix does not run.
func TestNothingToSay(t *testing.T) {
	i := instance(t, withOurs()+`
smtp_connection_cache_destinations = example.com, 192.0.2.1, hash:/etc/postfix/x, /etc/postfix/y
lmtp_connection_cache_on_demand = no
lmtp_connection_cache_destinations = static:all
smtp_tls_security_level = may
smtp_tls_connection_reuse = Yes
lmtp_tls_security_level = none
lmtp_use_tls = yes
smtp_connection_reuse_time_limit = 30
lmtp_connection_reuse_count_limit = 10
smtp_sasl_password_maps = static:u:p
smtp_sender_dependent_authentication = yes
lmtp_sasl_auth_enable = yes
lmtp_sender_dependent_authentication = yes
smtp_connection_cache_time_limit = 30
connection_cache_ttl_limit = 1m
connection_cache_endpoint_limit = 20
connection_cache_size_limit = 300`, edit{`^#tlsproxy`, "tlsproxy"})
	for rule, f := range diagnose(t, i) {
		if rule != "socket" {
			t.Errorf("%+v", f)
		}
	}
}

// What nobody uses, or is not there, has no faults of its own.
func TestNothingElseToSay(t *testing.T) {
	const never = "smtp_connection_cache_on_demand = no\nlmtp_connection_cache_on_demand = no\n"
	noProgram := t.TempDir()
	if err := os.WriteFile(filepath.Join(noProgram, "scache"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		main  string
		edits []edit
		rules string
	}{
		{never + "smtp_tls_security_level = may\nsmtp_connection_cache_time_limit = 1m", nil, "never-cached socket"},
		{never, []edit{{scacheLine, ""}}, "never-cached"},
		{"daemon_directory = " + noProgram + "\nconnection_cache_size_limit = 5", nil, "no-program on-demand-only socket"},
		{withOurs(), nil, "on-demand-only socket"},
		{"connection_cache_size_limit = 5\nconnection_cache_endpoint_limit = 2", nil, "on-demand-only socket unknown-to-stock"},
	} {
		found := diagnose(t, instance(t, c.main, c.edits...))
		if got := strings.Join(slices.Sorted(maps.Keys(found)), " "); got != c.rules {
			t.Errorf("%s: found %s, want %s", c.main, got, c.rules)
		}
		for _, f := range found {
			if len(slices.Compact(slices.Clone(f.Services))) < len(f.Services) {
				t.Errorf("%s: two findings in one: %+v", c.main, f)
			}
		}
		if f := found["no-program"]; len(f.Fix) > 0 {
			t.Errorf("another program, of the same name: %+v", f)
		}
	}
}

// A line of master.cf that waits to be uncommented is named; and what is the matter with one agent is told before what is
// better with another.
func TestTexts(t *testing.T) {
	i := instance(t, "smtp_connection_reuse_count_limit = 3\nsmtp_enforce_tls = yes\nlmtp_tls_security_level = dane\nlmtp_connection_cache_on_demand = no\nlmtp_connection_cache_destinations = static:all",
		edit{scacheLine, "#$0"}, edit{relayLine, "relay unix - - n - - smtp -o smtp_enforce_tls=no -o smtp_tls_per_site=static:may -o smtp_tls_connection_reuse=yes -o smtp_connection_reuse_count_limit=3"})
	s, err := Read(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	var found strings.Builder
	for _, f := range Diagnose(s) {
		fmt.Fprintf(&found, "%v, %v: %s\n", f.Severity, f.Services, f.Text)
		for _, command := range f.Fix {
			fmt.Fprintln(&found, strings.ReplaceAll(command, " -c "+i.Directory, ""))
		}
	}
	want := `error, [smtp]: smtp_tls_security_level is encrypt, and smtp_tls_connection_reuse is off
postconf -e 'smtp_tls_connection_reuse = yes'
postconf -M 'tlsproxy/unix=tlsproxy unix - - y - 0 tlsproxy'
error, [relay]: smtp_tls_connection_reuse is on, and the line of tlsproxy in master.cf is commented out
postconf -M 'tlsproxy/unix=tlsproxy unix - - n - 0 tlsproxy'
error, [smtp relay lmtp]: the line of scache in master.cf is commented out
postconf -M 'scache/unix=scache unix - - y - 1 scache'
warning, [smtp]: smtp_connection_reuse_count_limit is 3
postconf -e 'smtp_connection_reuse_count_limit = 0'
warning, [relay]: smtp_connection_reuse_count_limit is 3
postconf -P relay/unix/smtp_connection_reuse_count_limit=0
warning, [lmtp]: lmtp_tls_security_level is dane, and lmtp_tls_connection_reuse is off
postconf -e 'lmtp_tls_connection_reuse = yes'
postconf -M 'tlsproxy/unix=tlsproxy unix - - y - 0 tlsproxy'
note, [smtp relay]: connections are cached on demand only
`
	if found.String() != want {
		t.Errorf("found\n%s", found.String())
	}
}

// Lines of master.cf that are to be added are chrooted where the agent is that needs them.
func TestChroot(t *testing.T) {
	for _, chroot := range []string{"y", "n", "-"} {
		agents := edit{`^((smtp|relay|lmtp) +unix +- +- +)y`, "${1}" + chroot + " "}
		found := diagnose(t, instance(t, "smtp_tls_security_level = may\nsmtp_tls_connection_reuse = yes", agents, edit{scacheLine, ""}))
		for rule, want := range map[string]string{"no-cache-service": " unix - - " + chroot + " - 1 scache'", "no-tlsproxy": " unix - - " + chroot + " - 0 tlsproxy'"} {
			if fix := found[rule].Fix; len(fix) != 1 || !strings.HasSuffix(fix[0], want) {
				t.Errorf("%s: %q, want %q", rule, fix, want)
			}
		}
	}
}

// A line of tlsproxy(8) that is there stays as it is.
func TestTLSProxyIsThere(t *testing.T) {
	i := instance(t, "smtp_tls_security_level = may", edit{`^#tlsproxy`, "tlsproxy"})
	if f := diagnose(t, i)["tls-not-reused"]; !slices.Equal(f.Fix, []string{"postconf -c " + i.Directory + " -e 'smtp_tls_connection_reuse = yes'"}) {
		t.Errorf("found %+v", f)
	}
}

// tlsproxy(8) follows the older parameters, too, and is ready where a policy asks for TLS.
func TestTLSProxyOfOld(t *testing.T) {
	level := edit{relayLine, "$1 -o smtp_tls_security_level=may"}
	for main, edits := range map[string][]edit{
		"smtp_use_tls = yes": nil, "smtp_enforce_tls = yes": nil, "smtp_tls_policy_maps = static:may": {level}, "smtp_tls_per_site = static:may": {level},
	} {
		i := instance(t, main+"\nsmtp_tls_connection_reuse = yes", append(edits, edit{`^#tlsproxy`, "tlsproxy"})...)
		if f, found := diagnose(t, i)["tlsproxy-without-level"]; found {
			t.Errorf("%s: %+v", main, f)
		}
	}
}

// A socket unit is not put out of place by a service of master(8).
func TestSocketUnitIsDown(t *testing.T) {
	i := instance(t, "connection_cache_service_name = scache-systemd")
	f := diagnose(t, i)["no-cache-service"]
	if !slices.Equal(f.Fix, []string{"systemctl enable --now scache.socket"}) {
		t.Errorf("%+v", f)
	}
	s, err := Read(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	if got := NewReport(s).Caches[0].Socket; got != "does not answer" { // and not that Postfix does not run
		t.Errorf("the socket %s", got)
	}
}

// What is no file is not read: a container's log goes to standard output, which is also ours.
func TestLogIsNoFile(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "log")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, "/dev/stdout", "/dev/stderr"} {
		if l := readLog(path, []string{"postfix"}); l.Path != "" {
			t.Errorf("read %+v", l)
		}
	}
}

// Agents of one instance may use caches of their own.
func TestSeveralCaches(t *testing.T) {
	i := instance(t, "", edit{relayLine, "$1\n  -o connection_cache_service_name=second\nsecond unix - - n - 3 scache"}, edit{scacheLine, ""})
	found := diagnose(t, i)
	if f := found["process-limit"]; !slices.Equal(f.Services, []string{"second"}) {
		t.Errorf("found %+v", f)
	}
	if f := found["no-cache-service"]; !slices.Equal(f.Services, []string{"smtp", "lmtp"}) {
		t.Errorf("found %+v", f)
	}
}

// A name of the administrator's own, to which something refers, is no misspelt parameter.
func TestOwnNameIsNoMistake(t *testing.T) {
	for _, i := range []postconf.Instance{
		instance(t, "connection_cache_mine = 5\nconnection_cache_endpoint_limit = $connection_cache_mine"),
		instance(t, "connection_cache_mine = 5", edit{scacheLine, "$0\n  -o connection_cache_endpoint_limit=$${connection_cache_mine}"}),
	} {
		if f, found := diagnose(t, i)["unknown-parameter"]; found {
			t.Errorf("%+v", f)
		}
	}
}

// Who lists the relay hosts, by whatever spelling, or whose mail does not go there, is not told to.
func TestRelayListed(t *testing.T) {
	slow := edit{relayLine, "$1\nslow unix - - y - - smtp\n  -o smtp_connection_cache_destinations=example.org"}
	for main, edits := range map[string][]edit{
		"relayhost = [a.test]:587, [b.test]:587\nsmtp_connection_cache_destinations = a.test b.test": nil,
		"relayhost = [Mail.test]:587\nsmtp_connection_cache_destinations = mail.Test":                nil,
		"relayhost = [mail.test]\nsmtp_connection_cache_destinations = !mail.test, example.org":      nil,
		"relayhost = [ipv6:2001:db8::1]:587\nsmtp_connection_cache_destinations = example.org":       nil,
		"default_transport = lmtp:unix:lmtp\nlmtp_connection_cache_destinations = example.org":       nil,
		"relayhost = [mail.test]":                          {slow},
		"smtp_connection_cache_destinations = example.org": nil,
	} {
		if f, found := diagnose(t, instance(t, main, edits...))["relay-not-listed"]; found {
			t.Errorf("%s: %+v", main, f)
		}
	}
}

func TestNoConfiguration(t *testing.T) {
	_, err := Read(t.Context(), postconf.Instance{Directory: t.TempDir()})
	if err == nil || !strings.HasPrefix(err.Error(), "postconf: exit status 1: fatal: open ") || !strings.Contains(err.Error(), "main.cf") {
		t.Errorf("Read: %v", err)
	}
}

func TestLog(t *testing.T) {
	const host = "Nov 23 15:47:55 host "
	lines := strings.Repeat(host+"postfix/smtp[8]: 1A: to=<a@b.test>, relay=b.test[192.0.2.1]:25, delay=1, dsn=2.0.0, status=sent (250 ok)\n", enoughDeliveries) +
		host + "postfix/scache[9]: warning: client 7, user 109: connection_cache_ttl_limit lowers the time to live: asked 45s, granted 2s\n" +
		host + "postfix/smtp[8]: warning: disabling connection caching\n" +
		host + "postfix/scache-go[9]: fatal: service scache requires a process limit of 1\n" +
		host + "postfix/smtpd[9]: fatal: something else\n" +
		host + "postfix/master[5]: warning: /usr/lib/postfix/sbin/scache: bad command startup -- throttling\n" +
		host + "postfix/local[8]: 1A: to=<a@b.test>, relay=local, status=sent (delivered)\n"
	i := instance(t, "")
	path := filepath.Join(i.Directory, "log")
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	found := diagnose(t, i)
	for _, rule := range []string{"gave-up", "throttled", "logged-time-to-live", "nothing-reused"} {
		if found[rule].Text == "" {
			t.Errorf("no finding %s", rule)
		}
	}
	if why := found["throttled"].Why; !strings.Contains(why, ": service scache requires a process limit of 1.") {
		t.Errorf("throttled: %s", why)
	}
	missing := host + "postfix/master[5]: fatal: master_spawn: exec /usr/lib/postfix/sbin/scache-go: No such file or directory\n"
	if l := parseLog("", []byte(lines+missing), []string{"postfix"}); l.Fatal != "master_spawn: exec /usr/lib/postfix/sbin/scache-go: No such file or directory" {
		t.Errorf("read %+v", l)
	}
	lines += host + "postfix/lmtp[8]: 1A: to=<a@b.test>, relay=b.test[192.0.2.1]:25, conn_use=2, delay=1, dsn=2.0.0, status=sent (250 ok)\n"
	if l := parseLog("", []byte(lines), []string{"postfix"}); l.Deliveries != enoughDeliveries+1 || l.Reused != 1 || !l.Mended {
		t.Errorf("read %+v", l)
	}
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	found = diagnose(t, i)
	if f, still := found["nothing-reused"]; still {
		t.Errorf("found %+v", f)
	}
	for rule, text := range map[string]string{"gave-up": "1 agent has given up on the cache; connections were reused since", "throttled": "the cache did not start, 1 time; connections were reused since"} {
		if f := found[rule]; f.Severity != Note || !strings.HasSuffix(f.Text, text) {
			t.Errorf("trouble that is over: %+v", f)
		}
	}
	for _, trouble := range []string{"postfix/smtp[8]: warning: disabling connection caching\n", "postfix/master[5]: warning: /usr/lib/postfix/sbin/scache: bad command startup -- throttling\n"} {
		if l := parseLog("", []byte(lines+host+trouble), []string{"postfix"}); l.Mended {
			t.Errorf("read %+v", l)
		}
	}
}

// Several instances may log to one file: what others did is not this one's.
func TestLogOfSeveralInstances(t *testing.T) {
	const host = "Nov 23 15:47:55 host "
	lines := host + "postfix/smtp[8]: warning: disabling connection caching\n" +
		host + "postfix/master[5]: warning: /usr/lib/postfix/sbin/scache: bad command startup -- throttling\n" +
		strings.Repeat(host+"postfix/smtp[8]: 1A: to=<a@b.test>, relay=b.test[192.0.2.1]:25, dsn=2.0.0, status=sent (250 ok)\n", enoughDeliveries) +
		host + "postfix-out/smtp[8]: 1A: to=<a@b.test>, relay=b.test[192.0.2.1]:25, dsn=2.0.0, status=sent (250 ok)\n" +
		host + "postfix/fast/smtp[8]: 1A: to=<a@b.test>, relay=b.test[192.0.2.1]:25, dsn=2.0.0, status=sent (250 ok)\n" +
		host + "bulk/slow/smtp[8]: 1A: to=<a@b.test>, relay=b.test[192.0.2.1]:25, dsn=2.0.0, status=sent (250 ok)\n"
	i := instance(t, "multi_instance_name = postfix-out", edit{relayLine,
		"slow unix - - n - - smtp -o syslog_name=bulk/slow\nfast unix - - n - - smtp -o syslog_name=postfix/$$service_name\n$1"})
	if err := os.WriteFile(filepath.Join(i.Directory, "log"), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Read(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	if l := s.Log; l.Deliveries != 3 || l.Disabled+l.Throttled != 0 {
		t.Errorf("read %+v", l)
	}
}

// Why a cache did not start is not what was mended before, nor what it says in a shell.
func TestReasonInLog(t *testing.T) {
	const (
		wrong     = "postfix/scache[9]: fatal: service scache requires a process limit of 1\n"
		shell     = "postfix/scache[9]: fatal: do not run this command by hand\n"
		throttled = "postfix/master[5]: warning: /usr/lib/postfix/sbin/scache: bad command startup -- throttling\n"
		reused    = "postfix/smtp[8]: 1A: to=<a@b.test>, relay=b.test[192.0.2.1]:25, conn_use=2, delay=1, dsn=2.0.0, status=sent (250 ok)\n"
	)
	for lines, want := range map[string]bool{
		wrong + throttled:                              true,
		wrong + throttled + shell:                      true,
		wrong + throttled + reused:                     true,
		wrong + throttled + reused + throttled:         false,
		wrong + throttled + reused + wrong + throttled: true,
		shell + throttled:                              false,
	} {
		if l := parseLog("", []byte(lines), []string{"postfix"}); (l.Fatal != "") != want {
			t.Errorf("%s: read %+v", lines, l)
		}
	}
}

func TestOfAnother(t *testing.T) {
	const classic, iso = "Nov 23 15:47:55 host ", "2026-11-23T15:47:55.123456+01:00 host "
	for line, want := range map[string]bool{
		classic + "postfix/smtp[8]: 1A: to=<a/b[c]>": false, iso + "postfix/smtp[8]: 1A:": false, "postfix/smtp[8]: 1A:": false,
		classic + "our mail/smtp[8]: 1A:": false, classic + "scache[8]: warning: /a": false, iso + "a /b c": false, "": false,
		classic + "postfix-out/smtp[8]: 1A:": true, iso + "out-postfix/smtp[8]: 1A:": true, classic + "postfix/relay/smtp[8]: 1A:": true,
	} {
		if got := ofAnother([]byte(line), []string{"postfix", "our mail"}); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

// The cache, too, may be called postfix/$service_name in the log.
func TestLogOfTheCacheByItsService(t *testing.T) {
	const line = "Nov 23 15:47:55 host postfix/scache/scache[9]: fatal: service scache requires a process limit of 1\n"
	for _, name := range []string{"$service_name", "${service_name}", "$(service_name)"} {
		i := instance(t, "", edit{scacheLine, "$0\n  -o syslog_name=postfix/$" + name})
		if err := os.WriteFile(filepath.Join(i.Directory, "log"), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Read(t.Context(), i); err != nil || s.Log.Fatal == "" {
			t.Errorf("%s: read %+v, %v", name, s.Log, err)
		}
	}
}

// In JSON a list without elements is a list, whose elements a script can ask for.
func TestReportInJSON(t *testing.T) {
	noAgents := edit{`^(smtp|relay|lmtp) +unix .*(\n +-o.*)?$`, ""}
	for name, i := range map[string]postconf.Instance{"stock": instance(t, ""), "no agents": instance(t, "", noAgents)} {
		log := "Nov 23 15:47:55 host postfix/smtp[8]: warning: disabling connection caching\n"
		if err := os.WriteFile(filepath.Join(i.Directory, "log"), []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Read(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(NewReport(s))
		if err != nil || !bytes.Contains(text, []byte(`{"rule":"gave-up","severity":"warning","services":[],`)) || bytes.Contains(text, []byte("null")) {
			t.Errorf("%s: %v, %s", name, err, text)
		}
	}
}

// A line of master.cf that a running Postfix has not read is in force after a reload.
func TestNotReloaded(t *testing.T) {
	i := instance(t, "")
	public := filepath.Join(i.Directory, "public")
	if err := errors.Join(os.Mkdir(public, 0o755), os.WriteFile(filepath.Join(public, "pickup"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if f := diagnose(t, i)["socket"]; f.Severity != Error || !strings.HasPrefix(f.Text, "there is no socket at ") || !slices.Equal(f.Fix, []string{"postfix -c " + i.Directory + " reload"}) {
		t.Errorf("found %+v", f)
	}
}

// Agents differ in when they cache, for how long, and what of TLS.
func TestReport(t *testing.T) {
	i := instance(t, "smtp_tls_policy_maps = static:may\nsmtp_connection_cache_destinations = static:all\nlmtp_connection_cache_on_demand = no",
		edit{relayLine, `relay unix - - y - - smtp
  -o { smtp_connection_cache_destinations = } -o smtp_tls_connection_reuse=yes
slow unix - - y - - smtp
  -o smtp_connection_cache_on_demand=no -o smtp_connection_cache_time_limit=1
  -o smtp_tls_security_level=may -o smtp_tls_connection_reuse=yes -o tlsproxy_service_name=other
other unix - - y - 0 tlsproxy
  -o tlsproxy_client_security_level=may`})
	s, err := Read(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	r := NewReport(s)
	want := []AgentReport{
		{"smtp", "always for static:all; else on demand", "2s", "not cached"},
		{"relay", "on demand", "2s", "no tlsproxy"},
		{"slow", "for static:all", "1s", "by other"},
		{"lmtp", "never", "-", "TLS is off"},
	}
	if !slices.Equal(r.Agents, want) || r.Worst() != Error {
		t.Errorf("%+v, at worst %v", r.Agents, r.Worst())
	}
	// What tlsproxy(8) has on its own line counts.
	for _, f := range r.Findings {
		if f.Rule == "tlsproxy-without-level" {
			t.Errorf("found %+v", f)
		}
	}
}

// Of a long log the end is read.
func TestLongLog(t *testing.T) {
	const line = "Nov 23 15:47:55 host postfix/smtp[8]: 1A: to=<a@b.test>, relay=b.test[192.0.2.1]:25, dsn=2.0.0, status=sent (250 ok)\n"
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("postfix/smtp[8]: warning: disabling connection caching\n"+strings.Repeat(line, tailSize/len(line)+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if l := readLog(path, []string{"postfix"}); l.Disabled != 0 || l.Deliveries != tailSize/len(line) {
		t.Errorf("read %+v", l)
	}
}

// A value that the cache would end with, or keep nothing for, is found, in the cache's own words.
func TestParameters(t *testing.T) {
	for wrong, want := range map[string]string{
		"connection_cache_ttl_limit = 5x":                   "parameter connection_cache_ttl_limit: bad time value or unit: 5x",
		"connection_cache_ttl_limit = 0":                    "invalid connection_cache_ttl_limit: 0 (min 1)",
		"max_idle = 5y":                                     "parameter max_idle: bad time value or unit: 5y",
		"connection_cache_endpoint_limit = 2x":              "bad numerical configuration: connection_cache_endpoint_limit = 2x",
		"connection_cache_text_limit = 0":                   "invalid connection_cache_text_limit parameter value 0 < 1",
		"connection_cache_reuse_order = lifoo":              "bad value: lifoo (want fifo or lifo)",
		"connection_cache_close_handshake = yes":            "bad value: yes (want none or quit)",
		"connection_cache_policy_file = ${config_directory": "truncated macro reference",
		"connection_cache_policy_file = scache_rules":       "(want the absolute path of a file)",
	} {
		i := instance(t, withOurs()+wrong)
		if f := diagnose(t, i)["parameter-mistake"]; f.Severity != Error || !strings.Contains(f.Text, want) {
			t.Errorf("%s: %+v", wrong, f)
		}
		if f, found := diagnose(t, instance(t, wrong))["parameter-mistake"]; found {
			t.Errorf("%s: with stock %+v", wrong, f)
		}
	}
}

// The rules for destinations are shown, and what is wrong with them.
func TestPolicy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	i := instance(t, withOurs()+"connection_cache_policy_file = "+file)
	write("# ours\nhost=*.example.com keep=2\n* ttl=1s\n")
	s, err := Read(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	rules := NewReport(s).Caches[0].Rules
	if len(rules) != 2 || rules[0].Place != file+":2" || rules[0].Rule != "host=*.example.com keep=2" || !strings.Contains(rules[0].Meaning, "2 connections per endpoint") {
		t.Errorf("rules %+v", rules)
	}
	write("* ttl=1h\n")
	if f := diagnose(t, i)["policy-oddity"]; f.Severity != Warning {
		t.Errorf("a time to live above the limit: %+v", f)
	}
	write("* keep=many\n")
	if f := diagnose(t, i)["policy-mistake"]; f.Severity != Error || !strings.HasPrefix(f.Text, file+", line 1: ") {
		t.Errorf("a wrong word: %+v", f)
	}
	os.Remove(file)
	if f := diagnose(t, i)["policy-mistake"]; f.Severity != Error {
		t.Errorf("no file: %+v", f)
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{"a=b": "a=b", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$x": "'$x'"} {
		if got := quote(word); got != want {
			t.Errorf("quote(%q) = %s, want %s", word, got, want)
		}
	}
}
