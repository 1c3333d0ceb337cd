package ctl

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
)

// capture is where TestTopOfPostfix leaves what it sees, for pictures.
var capture = flag.String("capture", "", "write the terminal's contents to files in this `directory`")

// mail is a Postfix instance and a receiver that all mail goes to, by four domains.
type mail struct {
	*lab.Lab
	t    *testing.T
	sink *lab.Sink
}

var domains = []string{"a.test", "b.test", "c.test", "d.test"}

// caching says when to cache, and for how long.
var caching = map[string]string{
	"smtp_connection_cache_destinations": "127.0.0.1, localhost",
	"smtp_connection_cache_time_limit":   "60s",
	"connection_cache_ttl_limit":         "60s",
}

func startMail(t *testing.T, cfg lab.Config, sinkConfig lab.SinkConfig) *mail {
	t.Helper()
	sink, err := lab.NewSink(sinkConfig)
	must(t, err)
	t.Cleanup(sink.Close)
	if cfg.Routes == nil {
		cfg.Routes = map[string]string{}
	}
	for i, domain := range domains {
		cfg.Routes[domain] = fmt.Sprintf("[%s]:%d", []string{"127.0.0.1", "localhost"}[i%2], sink.Port())
	}
	l, err := lab.New(cfg)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	must(t, l.Start(limit(t)))
	return &mail{l, t, sink}
}

func (m *mail) socket() string { return filepath.Join(m.QueueDir(), "private", "scache") }

// deliver sends so many messages to each domain, and waits until all have arrived.
func (m *mail) deliver(each int) (messages int) {
	m.t.Helper()
	before := m.Delivered()
	for _, domain := range domains {
		must(m.t, m.Send(limit(m.t), lab.Load{Domain: domain, Messages: each}))
	}
	messages = each * len(domains)
	must(m.t, m.WaitDelivered(limit(m.t), before+messages))
	return messages
}

// reused counts the deliveries that the log shows over connections used before.
func (m *mail) reused() int { return len(m.LogLines(regexp.MustCompile(` conn_use=\d+`))) }

// What scachectl counts is what the mail log and the receiver have counted.
func TestCountsAgree(t *testing.T) {
	t.Parallel()
	m := startMail(t, lab.Config{Scache: scache, Main: caching, Chroot: true}, lab.SinkConfig{})
	messages := int64(m.deliver(100))
	// A delivery is logged before its connection is saved.
	var v map[string]int64
	lab.Poll(limit(t), func() bool {
		v = statistics(t, m.socket())
		return v["connections_saved"] == messages
	})
	seen := m.sink.Counts()
	t.Logf("%d messages over %d connections, %d in the log over used ones", messages, seen.Sessions, m.reused())
	hits := v["destination_hits"] + v["endpoint_hits"]
	for what, pair := range map[string][2]int64{
		"look-ups by destination, and messages":        {v["destination_hits"] + v["destination_misses"], messages},
		"hits, and deliveries with conn_use":           {hits, int64(m.reused())},
		"hits and the receiver's connections, to all":  {hits + int64(seen.Sessions), messages},
		"connections that were taken, and hits":        {v["closed_taken"], hits},
		"connections saved, and messages":              {v["connections_saved"], messages},
		"connections cached, and open at the receiver": {v["connections"], int64(seen.Open)},
		"destinations, and the domains' next hops":     {v["destinations"], 2},
		"bindings saved or refreshed, and messages":    {v["bindings_saved"] + v["bindings_refreshed"], messages},
		"saved, and those taken, or here":              {v["connections_saved"], v["closed_taken"] + v["connections"]},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %d and %d", what, pair[0], pair[1])
		}
	}

	list := fromJSON[[]listed](t, m.socket(), "list")
	if len(list) != seen.Open || seen.Open == 0 {
		t.Errorf("%d connections are listed, and %d open at the receiver", len(list), seen.Open)
	}
	for _, e := range list {
		if want := fmt.Sprintf("127.0.0.1:%d", m.sink.Port()); e.Remote != want || e.Kind != "tcp" || !strings.Contains(e.Endpoint, "\n127.0.0.1\n") {
			t.Errorf("listed %+v, want remote %s", e, want)
		}
	}
	if text := ctl(t, m.socket(), "flush", "pattern", "*127.0.0.1*"); !strings.HasPrefix(text, fmt.Sprintf("closed %d connection", seen.Open)) {
		t.Errorf("flush printed %s", text)
	}
	must(t, lab.Poll(limit(t), func() bool { return m.sink.Counts().Open == 0 }))
}

// Postfix's own cannot be asked, which is said; doctor works with it.
func TestStock(t *testing.T) {
	t.Parallel()
	m := startMail(t, lab.Config{Main: caching}, lab.SinkConfig{})
	for _, command := range []string{"status", "list", "list bindings", "flush all", "pause", "resume", "limits", "top", "top -json"} {
		r := run(t, append(strings.Fields(command), "-socket", m.socket())...)
		if r.status != 5 || r.stdout != "" || !strings.Contains(r.stderr, "Postfix's own scache") || !strings.Contains(r.stderr, "scachectl doctor") {
			t.Errorf("%s: %+v", command, r)
		}
	}
	r := run(t, "doctor", "-c", m.ConfigDir())
	if r.status != 0 || !strings.Contains(r.stdout, "sbin/scache is Postfix's own, answers") || r.stderr != "" {
		t.Errorf("doctor: %+v", r)
	}
	r = runAs(t, nobody(t), "status", "-socket", m.socket())
	if r.status != 4 || !strings.Contains(r.stderr, "not allowed to connect") {
		t.Errorf("as nobody: %+v", r)
	}
	// Nobody can look at everything, and what cannot be seen is no error.
	r = runAs(t, nobody(t), "doctor", "-c", m.ConfigDir())
	if r.status != 0 || !strings.Contains(r.stdout, "was not tried") {
		t.Errorf("doctor as nobody: %+v", r)
	}
}

// The socket of Postfix is found through postconf(1).
func TestSocketOfPostfix(t *testing.T) {
	t.Parallel()
	m := startMail(t, lab.Config{Scache: scache, Main: map[string]string{"connection_cache_service_name": "keep"}, Service: "keep"}, lab.SinkConfig{})
	term := newTerminal(t, 100, 30, "sh", "MAIL_CONFIG="+m.ConfigDir())
	term.line("scachectl status")
	term.awaitText("by destination")
}

// Top, while Postfix delivers to several receivers.
func TestTopOfPostfix(t *testing.T) {
	t.Parallel()
	const others = 6
	routes := map[string]string{}
	for i := range others {
		sink, err := lab.NewSink(lab.SinkConfig{})
		must(t, err)
		t.Cleanup(sink.Close)
		routes[fmt.Sprintf("%d.test", i)] = fmt.Sprintf("[127.0.0.1]:%d", sink.Port())
	}
	m := startMail(t, lab.Config{Scache: scache, Main: caching, Routes: routes, SMTPProcs: 30}, lab.SinkConfig{})
	term := newTerminal(t, 100, 30, "sh", "NO_COLOR=")
	term.line("exec scachectl top -interval 200ms -socket " + m.socket())
	term.awaitText("q quit")
	rounds := 1
	if *capture != "" {
		rounds = 10
	}
	for range rounds {
		for i := range others {
			must(t, m.Send(limit(t), lab.Load{Domain: fmt.Sprintf("%d.test", i), Messages: 2 + 3*i}))
		}
		m.deliver(20)
	}
	shown := regexp.MustCompile(`smtp\\n\[(127\.0\.0\.1|localhost)\]:\d+`)
	screen := term.await("all destinations", func(screen string) bool {
		return len(shown.FindAllString(screen, -1)) == others+2 && regexp.MustCompile(`cached +[1-9]`).MatchString(screen)
	})
	if *capture != "" {
		must(t, os.MkdirAll(*capture, 0o755))
		must(t, os.WriteFile(filepath.Join(*capture, "top.txt"), []byte(screen), 0o644))
		must(t, os.WriteFile(filepath.Join(*capture, "top.ansi"), []byte(term.tmux("capture-pane", "-p", "-e")), 0o644))
	}
}

// findings runs doctor on the instance, and returns the rules that it found, and the
// fixes by rule.
func (m *mail) findings() map[string][]string {
	m.t.Helper()
	r := run(m.t, "doctor", "-json", "-c", m.ConfigDir())
	report := decode[struct {
		Findings []struct {
			Rule string
			Fix  []string
		}
	}](m.t, r.stdout)
	found := map[string][]string{}
	for _, f := range report.Findings {
		found[f.Rule] = f.Fix
	}
	return found
}

// cure carries out what doctor suggests against a finding, and reloads.
func (m *mail) cure(rule string) {
	m.t.Helper()
	fix, found := m.findings()[rule]
	if !found || len(fix) == 0 {
		m.t.Fatalf("no fix for %s in %v", rule, slices.Sorted(maps.Keys(m.findings())))
	}
	for _, command := range fix {
		shell(m.t, command)
	}
	m.reload()
}

// reload has the instance read a configuration that was changed. Postfix programs
// wait until main.cf has rested.
func (m *mail) reload() {
	m.t.Helper()
	past := time.Now().Add(-time.Minute)
	must(m.t, os.Chtimes(filepath.Join(m.ConfigDir(), "main.cf"), past, past))
	must(m.t, m.Reload(limit(m.t)))
}

// What doctor says is so, and what it suggests helps: mail that makes a connection
// each before goes over cached ones after.
func TestDoctorCures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule string
		main map[string]string
		sink lab.SinkConfig
	}{
		{rule: "never-cached", main: map[string]string{"smtp_connection_cache_destinations": "", "smtp_connection_cache_on_demand": "no"}},
		{rule: "unmatchable-destination", main: map[string]string{"smtp_connection_cache_destinations": "[127.0.0.1], [localhost]"}},
		{rule: "tls-not-reused", main: map[string]string{"smtp_tls_security_level": "may"}, sink: lab.SinkConfig{TLS: true}},
		{rule: "few-uses", main: map[string]string{"smtp_connection_reuse_count_limit": "1"}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			main := maps.Clone(caching)
			maps.Copy(main, c.main)
			// Without its process there is nothing to reuse: none leaves too early.
			main["max_idle"] = "1h"
			m := startMail(t, lab.Config{Main: main}, c.sink)
			few := m.deliver(15)
			sessions := m.sink.Counts().Sessions
			if sessions < few/2 {
				t.Errorf("%d messages over %d connections, with nothing wrong", few, sessions)
			}
			m.cure(c.rule)
			if c.rule == "never-cached" { // on demand needs demand
				shell(t, "postconf -c "+m.ConfigDir()+" -e 'smtp_connection_cache_destinations = 127.0.0.1, localhost'")
				m.reload()
			}
			if _, still := m.findings()[c.rule]; still {
				t.Errorf("%s is found still", c.rule)
			}
			m.deliver(15)
			if more := m.sink.Counts().Sessions - sessions; more >= few/2 {
				t.Errorf("%d more messages over %d connections", few, more)
			}
		})
	}
}

// Without tlsproxy(8) mail that needs it is held up, and goes out when it is there.
func TestDoctorCuresNoTLSProxy(t *testing.T) {
	t.Parallel()
	main := maps.Clone(caching)
	maps.Copy(main, map[string]string{"smtp_tls_security_level": "encrypt", "smtp_tls_connection_reuse": "yes", "max_idle": "1h"})
	m := startMail(t, lab.Config{Main: main}, lab.SinkConfig{TLS: true})
	shell(t, "postconf -c "+m.ConfigDir()+" -MX tlsproxy/unix")
	m.reload()
	must(t, m.Send(limit(t), lab.Load{Domain: "a.test", Messages: 20}))
	must(t, m.WaitLog(limit(t), regexp.MustCompile(`status=deferred`)))
	if n := m.Delivered(); n != 0 {
		t.Errorf("%d messages are delivered", n)
	}
	m.cure("no-tlsproxy")
	must(t, m.WaitDelivered(limit(t), 20))
	if c := m.sink.Counts(); c.Secured != c.Sessions || m.reused() == 0 {
		t.Errorf("%d connections, %d of them under TLS, %d deliveries over used ones", c.Sessions, c.Secured, m.reused())
	}
}

// Doctor asks ours for the limits in force, and says which program it is.
func TestDoctorOfOurs(t *testing.T) {
	t.Parallel()
	main := maps.Clone(caching)
	main["max_idle"] = "1h"
	m := startMail(t, lab.Config{Scache: scache, Main: main}, lab.SinkConfig{})
	m.deliver(15)
	r := run(t, "doctor", "-c", m.ConfigDir())
	if r.status != 0 || !strings.Contains(r.stdout, "sbin/scache is version development of this project, answers") {
		t.Errorf("doctor: %+v", r)
	}
	// Its rules are shown, to who may read them.
	file := filepath.Join(m.ConfigDir(), "rules")
	must(t, os.WriteFile(file, []byte("host=*.example.com keep=2\n"), 0o600))
	shell(t, "postconf -c "+m.ConfigDir()+" -e 'connection_cache_policy_file = "+file+"'")
	m.reload()
	r = run(t, "doctor", "-c", m.ConfigDir())
	if !regexp.MustCompile(`\n\nRULE OF SCACHE +PATTERNS AND OPTIONS +WHAT MATCHES IS\n` + file + `:1 +host=\*\.example\.com keep=2 +2 connections per endpoint at most\n`).MatchString(r.stdout) {
		t.Errorf("doctor: %+v", r)
	}
	r = runAs(t, nobody(t), "doctor", "-c", m.ConfigDir())
	if r.status != 0 || !strings.Contains(r.stdout, "\nnote     scache: open "+file+": permission denied\n         Its rules were not looked at.\n") {
		t.Errorf("doctor as nobody: %+v", r)
	}
	ctl(t, m.socket(), "limits", "ttl_limit=30s")
	m.cure("not-in-force")
	must(t, lab.Poll(limit(t), func() bool { return len(m.findings()) == 0 || m.findings()["not-in-force"] == nil }))
	ctl(t, m.socket(), "pause")
	m.cure("paused")
	must(t, lab.Poll(limit(t), func() bool { return len(m.findings()) == 0 }))
}

// What doctor says of authentication by sender, which the manual of Postfix says
// disables caching: it is cached, by sender.
func TestCachedBySender(t *testing.T) {
	t.Parallel()
	main := maps.Clone(caching)
	maps.Copy(main, map[string]string{
		"smtp_sasl_auth_enable": "yes", "smtp_sasl_password_maps": "static:user:password",
		"smtp_sender_dependent_authentication": "yes",
	})
	m := startMail(t, lab.Config{Scache: scache, Main: main}, lab.SinkConfig{})
	m.deliver(15)
	if _, found := m.findings()["by-sender"]; !found || m.reused() == 0 {
		t.Errorf("findings %v; %d deliveries over used connections", m.findings(), m.reused())
	}
	bindings := fromJSON[[]listed](t, m.socket(), "list", "bindings")
	if len(bindings) == 0 {
		t.Error("there are no bindings")
	}
	for _, b := range bindings {
		if !strings.Contains(b.Destination, "\nload@sender.test\n") || !strings.Contains(b.Endpoint, "\nload@sender.test\n") {
			t.Errorf("labels without the sender: %+v", b)
		}
	}
}

// Others than master(8) may listen for agents: then master.cf need not have a line.
func TestDoctorOfAnotherService(t *testing.T) {
	t.Parallel()
	main := maps.Clone(caching)
	main["connection_cache_service_name"] = "another"
	m := startMail(t, lab.Config{Main: main}, lab.SinkConfig{})
	if _, found := m.findings()["no-cache-service"]; !found {
		t.Errorf("findings %v", m.findings())
	}
	s := &server{t: t, socket: filepath.Join(m.QueueDir(), "private", "another")}
	s.start("-mode", "0666", "-ttl-limit", "20s")
	few := m.deliver(15)
	if n := m.sink.Counts().Sessions; n >= few/2 {
		t.Errorf("%d messages over %d connections", few, n)
	}
	found := m.findings()
	if fix, lowered := found["lowered-time-to-live"]; !lowered || len(fix) > 0 || len(found) != 1 {
		t.Errorf("findings %v", found)
	}
}

// A cache that master(8) cannot start shows in the log.
func TestDoctorReadsTheLog(t *testing.T) {
	t.Parallel()
	m := startMail(t, lab.Config{Main: caching, Limit: "2"}, lab.SinkConfig{})
	m.deliver(1)
	must(t, m.WaitLog(limit(t), regexp.MustCompile(`scache: bad command startup`)))
	found := m.findings()
	for _, rule := range []string{"process-limit", "throttled", "gave-up"} {
		if _, ok := found[rule]; !ok {
			t.Errorf("no finding %s in %v", rule, found)
		}
	}
}
