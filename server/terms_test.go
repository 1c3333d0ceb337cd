package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/policy"
	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
)

// What a policy does to what clients save.

// rules reads a policy; white space at the beginning of lines is the test's.
func rules(t *testing.T, text string) *policy.Policy {
	t.Helper()
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	p, err := policy.Parse("rules", []byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestScriptsUnderPolicy(t *testing.T) {
	p := rules(t, `destination=none cache=no
		host=mx.none cache=no
		endpoint=nothing cache=no
		destination=brief ttl=1
		endpoint=short ttl=1
		destination=one keep=1
		destination=lifo order=lifo
		destination=long ttl=1h`)
	for _, script := range policyScripts {
		t.Run(script.name, func(t *testing.T) {
			j := newJudge(&Config{Policy: p, TTLLimit: 1000 * time.Second})
			playAtEverySplitUnder(t, j, script.text)
		})
	}
}

var policyScripts = []struct{ name, text string }{
	{"a destination that is not cached: nor is what is saved for it", `
		> "request\0save_dest\0ttl\09\0label\0none\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\02\0\0"
		< "dummy\0\0\0"
		> fd 2
		< "status\00\0\0"
		# there is a connection, but no binding
		> "request\0find_dest\0label\0none\0\0"
		< "status\02\0property\0\0property\0\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\02\0\0"
		> "dummy\0\0\0"
		< fd 2`},
	{"a binding has a say in the next connection to its endpoint only", `
		> "request\0save_dest\0ttl\09\0label\0none\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0f\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_endp\0label\0f\0\0"
		< "status\00\0property\01\0\0"`},
	{"nor in that to an endpoint without a name", `
		> "request\0save_dest\0ttl\09\0label\0none\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0\0property\02\0\0"
		< "dummy\0\0\0"
		> fd 2
		< "status\00\0\0"
		> "request\0find_endp\0label\0\0\0"
		< "status\00\0property\02\0\0"`},
	{"the last binding counts", `
		> "request\0save_dest\0ttl\09\0label\0none\0property\0\0label\0e\0\0request\0save_dest\0ttl\09\0label\0d\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_dest\0label\0d\0\0"
		< "status\00\0property\0\0property\01\0\0"`},
	{"a host that is not cached", `
		> "request\0save_dest\0ttl\09\0label\0d\0property\0destination=d\nhost_name=mx.none\n\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"`},
	{"an endpoint that is not cached", `
		> "request\0save_endp\0ttl\09\0label\0nothing\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_endp\0label\0nothing\0\0"
		< "status\02\0property\0\0\0"`},
	{"not cached, and no descriptor", `
		> "request\0save_endp\0ttl\09\0label\0nothing\0property\01\0\0"
		< "dummy\0\0\0"
		> "x"
		< "status\02\0\0"`},
	{"a shorter time to live, of an endpoint", `
		> "request\0save_endp\0ttl\09\0label\0short\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		advance 1s
		> "request\0find_endp\0label\0short\0\0"
		< "status\00\0property\01\0\0"
		> "\0"
		advance 1ms
		> "request\0find_endp\0label\0short\0\0"
		< "status\02\0property\0\0\0"`},
	{"a shorter time to live, of a binding and its connection", `
		> "request\0save_dest\0ttl\09\0label\0brief\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		advance 500ms
		> "request\0save_endp\0ttl\09\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		advance 501ms
		> "request\0find_dest\0label\0brief\0\0"
		< "status\02\0property\0\0property\0\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\01\0\0"
		> "\0"
		advance 500ms
		> "request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"`},
	{"no longer time to live than was asked for", `
		> "request\0save_dest\0ttl\01\0label\0long\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\01\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		advance 1001ms
		> "request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"`},
	{"one kept", `
		> "request\0save_endp\0ttl\09\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0save_dest\0ttl\09\0label\0one\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\02\0\0"
		< "dummy\0\0\0"
		> fd 2
		< "status\00\0\0"
		> "request\0find_dest\0label\0one\0\0"
		< "status\00\0property\0\0property\02\0\0"
		> "dummy\0\0\0"
		< fd 2
		> "dummy\0\0\0request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"`},
	{"the newest first", `
		> "request\0save_endp\0ttl\09\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0save_dest\0ttl\09\0label\0lifo\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\02\0\0"
		< "dummy\0\0\0"
		> fd 2
		< "status\00\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\02\0\0"`},
}

// What a rule leaves open is as the configuration says.
func TestTerms(t *testing.T) {
	p := rules(t, `endpoint=a ttl=5
		endpoint=b ttl=1m keep=2 order=fifo handshake=none
		endpoint=c keep=unlimited cache=yes
		endpoint=d cache=no handshake=quit`)
	j := newJudge(&Config{Policy: p, TTLLimit: 30 * time.Second, Quit: true, Order: store.NewestFirst})
	none := j.others.ttl
	for label, want := range map[string]terms{
		"a": {line: 1, ttl: 5, quit: true, kept: &store.Terms{Order: store.NewestFirst}},
		"b": {line: 2, ttl: 60, kept: &store.Terms{PerEndpoint: 2}}, // the limit is lower now, and can be raised
		"c": {line: 3, ttl: none, quit: true, kept: &store.Terms{PerEndpoint: -1, Order: store.NewestFirst}},
		"d": {line: 4, ttl: none, quit: true, decline: true, kept: &store.Terms{Order: store.NewestFirst}},
	} {
		found, _ := j.find(policy.Labels{Endpoint: []byte(label)})
		got := *found
		if *got.kept != *want.kept {
			t.Errorf("%s: %+v, want %+v", label, *got.kept, *want.kept)
		}
		if got.kept = want.kept; got != want {
			t.Errorf("%s: %+v, want %+v", label, got, want)
		}
	}
	if got, _ := j.find(policy.Labels{Endpoint: []byte("e")}); got != &j.others || got.kept != nil || !got.quit {
		t.Errorf("without a rule: %+v", got)
	}
}

// The handshake is that of the rule under which a connection was saved, whatever makes it
// leave; what is not cached leaves at once.
func TestHandshakeByPolicy(t *testing.T) {
	for _, quit := range []bool{false, true} {
		t.Run(fmt.Sprint("quit ", quit), func(t *testing.T) {
			t.Parallel()
			r := run(t, func(c *Config) {
				c.Quit = quit
				c.Policy = rules(t, `endpoint=polite handshake=quit
					endpoint=silent handshake=none
					endpoint=polite-declined cache=no handshake=quit
					endpoint=silent-declined cache=no handshake=none`)
			})
			client := r.dial()
			defer unix.Close(client)
			word := map[bool]string{true: "QUIT\r\n"}
			leave, stay := map[int]string{}, map[int]string{} // all at the same time
			for label, want := range map[string]string{"polite": word[true], "silent": "", "other": word[quit]} {
				near, end := far(t)
				save(t, client, "50", label, near)
				stay[end] = want
				near, end = far(t)
				save(t, client, "1", label, near)
				leave[end] = want
			}
			for label, want := range map[string]string{"polite-declined": word[true], "silent-declined": ""} {
				near, end := far(t)
				save(t, client, "50", label, near)
				leave[end] = want
			}
			for end, want := range leave {
				expectEnd(t, end, want)
			}
			r.Stop()
			for end, want := range stay {
				expectEnd(t, end, want)
			}
			r.wait()
		})
	}
}

// With handshake=quit a connection on which the far end spoke is not handed out; others
// are, also under a descriptor that had such a rule before.
func TestUnsolicitedBytesByPolicy(t *testing.T) {
	r := run(t, func(c *Config) { c.Policy = rules(t, "endpoint=polite handshake=quit") })
	client := r.dial()
	defer unix.Close(client)
	for range 3 {
		near, end := far(t)
		save(t, client, "50", "polite", near)
		say(end, "421 too many\r\n")
		say(client, find("polite"))
		expect(t, client, miss)
		unix.Close(end)

		near, end = far(t)
		save(t, client, "50", "other", near)
		say(end, "421 too many\r\n")
		say(client, find("other"))
		expect(t, client, "status\x000\x00property\x00p\x00\x00")
		say(client, "dummy\x00\x00\x00")
		receive(t, client)
		say(client, "dummy\x00\x00\x00")
	}
}

// A successor leaves what it takes over under the terms that it has, also what is being saved;
// what is saved from then on is under its own policy.
func TestPolicyIsTakenOver(t *testing.T) {
	r := run(t, func(c *Config) {
		c.HandOver = true
		c.Policy = rules(t, `destination=none cache=no
			endpoint=polite handshake=quit
			endpoint=lifo order=lifo keep=3
			endpoint=nothing cache=no`)
	})
	client, saving, bound := r.dial(), r.dial(), r.dial()
	saves := func(fd int, endpoint string) {
		t.Helper()
		say(fd, "request\x00save_endp\x00ttl\x0050\x00label\x00"+endpoint+"\x00property\x00p\x00\x00")
		expect(t, fd, "dummy\x00\x00\x00")
	}
	sends := func(fd, near int) {
		t.Helper()
		sendRights(t, fd, "\x00", near)
		expect(t, fd, "status\x000\x00\x00")
		unix.Dup3(client, near, unix.O_CLOEXEC) // the test has no copy of it any more
	}
	nearPolite, polite := far(t)
	save(t, client, "50", "polite", nearPolite)
	nearSilent, silent := far(t)
	save(t, client, "50", "silent", nearSilent)
	var kept []int
	for range 4 {
		near, end := far(t)
		save(t, client, "50", "lifo", near)
		kept = append(kept, end)
	}
	expectEnd(t, kept[0], "")
	saves(saving, "nothing")
	say(bound, "request\x00save_dest\x00ttl\x0050\x00label\x00none\x00property\x00\x00label\x00e\x00\x00")
	expect(t, bound, "status\x000\x00\x00")

	// The next one says QUIT where this one does not, and has no rule for the rest.
	r.Server.config.Policy = rules(t, "endpoint=silent handshake=quit")
	r = r.succeed()
	near, declined := far(t)
	sends(saving, near)
	expectEnd(t, declined, "")
	saves(bound, "e")
	near, declined = far(t)
	sends(bound, near)
	expectEnd(t, declined, "")

	say(kept[3], "the newest")
	say(client, find("lifo"))
	expect(t, client, "status\x000\x00property\x00p\x00\x00")
	say(client, "dummy\x00\x00\x00")
	taken := receive(t, client)
	say(client, "dummy\x00\x00\x00")
	expect(t, taken, "the newest")

	nearNow, now := far(t)
	save(t, client, "50", "silent", nearNow)
	nearNothing, nothing := far(t)
	save(t, client, "50", "nothing", nearNothing)
	r.Stop()
	expectEnd(t, polite, "QUIT\r\n")
	expectEnd(t, silent, "")
	expectEnd(t, now, "QUIT\r\n")
	expectEnd(t, nothing, "")
	r.wait()
	if got := r.log.lines[len(r.log.lines)-1]; !strings.Contains(got, " evicted=1 ") || !strings.Contains(got, " declined=2;") || !strings.HasSuffix(got, "declined bindings=1 lowered ttl=0") {
		t.Errorf("the last line is %q", got)
	}
}

// A policy may come and go with a successor.
func TestPolicyOfOneOnly(t *testing.T) {
	p := rules(t, "* handshake=quit")
	for _, before := range []bool{false, true} {
		r := run(t, func(c *Config) {
			c.HandOver = true
			if before {
				c.Policy = p
			}
		})
		client := r.dial()
		near, old := far(t)
		save(t, client, "50", "e", near)
		r.Server.config.Policy = map[bool]*policy.Policy{false: p, true: nil}[before]
		r = r.succeed()
		near, young := far(t)
		save(t, client, "50", "e", near)
		r.Stop()
		for end, quit := range map[int]bool{old: false, young: !before} {
			expectEnd(t, end, map[bool]string{true: "QUIT\r\n"}[quit])
		}
		r.wait()
	}
}

// The log tells which policy there is, and what it did.
func TestPolicyInTheLog(t *testing.T) {
	r := run(t, func(c *Config) {
		c.Verbose = true
		c.Policy = rules(t, `destination=none cache=no
			# a comment
			endpoint=short ttl=5
			endpoint=long ttl=1h`)
	})
	client := r.dial()
	bind := func(destination, endpoint string) {
		say(client, "request\x00save_dest\x00ttl\x0030\x00label\x00"+destination+"\x00property\x00\x00label\x00"+endpoint+"\x00\x00")
		expect(t, client, "status\x000\x00\x00")
	}
	bind("none", "e")
	near, _ := far(t)
	save(t, client, "30", "e", near)
	bind("d", "short")
	near, _ = far(t)
	save(t, client, "30", "short", near)
	bind("d", "e")
	unix.Close(client)
	r.stop()
	for _, want := range []string{
		"policy rules: rules=3",
		"warning: rules, line 4: connection_cache_ttl_limit lowers ttl=1h0m0s to 1m0s",
		"closed: expired=0 evicted=0 hung-up=0 unsolicited=0 shutdown=1 flushed=0 client-gone=0 declined=1; displaced bindings=0 lowered ttl=0 refused saves=0 lost descriptors=0 delayed clients=0 delayed hand-overs=0 disconnected clients=0; policy: declined bindings=1 lowered ttl=2",
	} {
		if !slices.Contains(r.log.lines, want) {
			t.Errorf("%q is not in the log: %q", want, r.log.lines)
		}
	}
	for end, n := range map[string]int{
		`save_dest destination "none" endpoint "e" ttl 30: ready, policy line 1`:               1,
		`save_endp destination "" endpoint "e" ttl 30: awaiting descriptor, policy line 1`:     1,
		`save_dest destination "d" endpoint "short" ttl 30: ready, policy line 3`:              1,
		`save_endp destination "" endpoint "short" ttl 30: awaiting descriptor, policy line 3`: 1,
		`save_dest destination "d" endpoint "e" ttl 30: ready`:                                 1,
	} {
		got := 0
		for _, line := range r.log.lines {
			if strings.HasSuffix(line, end) {
				got++
			}
		}
		if got != n {
			t.Errorf("%d lines end with %q, want %d: %q", got, end, n, r.log.lines)
		}
	}
}

// Each report tells what the policy did since the last one.
func TestPolicyInEachReport(t *testing.T) {
	log := &logbook{}
	s := statistics{}
	for n := range 2 {
		s.loweredByPolicy = n + 1
		s.report(log, time.Now(), 0, true)
	}
	if len(log.lines) != 2 || !strings.HasSuffix(log.lines[0], " lowered ttl=1") || !strings.HasSuffix(log.lines[1], " lowered ttl=2") {
		t.Errorf("%q", log.lines)
	}
}

// Without a policy the log has no word of it.
func TestNoPolicyInTheLog(t *testing.T) {
	r := run(t, func(c *Config) { c.TTLLimit = time.Second })
	client := r.dial()
	near, _ := far(t)
	save(t, client, "30", "e", near)
	unix.Close(client)
	r.stop()
	closed := ""
	for _, line := range r.log.lines {
		if strings.HasPrefix(line, "closed: ") {
			closed = line
		}
	}
	if !strings.Contains(closed, " lowered ttl=1 ") || strings.Contains(closed, "declined") || strings.Contains(closed, "policy") {
		t.Errorf("%q", r.log.lines)
	}
}

func TestNothingIsAllocatedUnderPolicy(t *testing.T) {
	p := newPlayer(t)
	p.session.cache.judge = newJudge(&Config{TTLLimit: time.Hour, Policy: rules(t, "destination=d host=h ttl=2 keep=5\nendpoint=e ttl=3")})
	steadyState(t, p)
}

// A rule holds as well when the limit above it was raised.
func TestRaisedLimitLeavesRules(t *testing.T) {
	r := run(t, func(c *Config) { c.TTLLimit, c.Policy = 2*time.Second, rules(t, "* ttl=30s") })
	c := r.dial()
	defer unix.Close(c)
	ask(t, c, proto.AdminSetLimit, "connection_cache_ttl_limit", "3600")
	say(c, string(proto.AppendSaveDestination(nil, 600, "d", "", "e")))
	expect(t, c, "status\x000\x00\x00")
	say(c, string(proto.AppendAdmin(nil, proto.AdminList, "bindings")))
	m := &messages{t: t, fd: c}
	m.next() // the status
	if remaining := m.next()["remaining"]; remaining == "" || len(remaining) > len("30000") {
		t.Errorf("it lives for %q ms, and the rule says 30 s", remaining)
	}
}

// Who makes us look at many patterns is charged for it.
func TestPatternsAreCharged(t *testing.T) {
	c := pureCache(1000, func(int) {})
	c.judge = newJudge(&Config{Policy: rules(t, strings.Repeat("host=*.example.com keep=2\n", 100))})
	s := session{cache: c, client: 1}
	save := func() (charged int) {
		s.step(&input{fd: -1, bytes: proto.AppendSaveDestination(nil, 2, "d", "host_name="+strings.Repeat("x", 100), "e")})
		return c.spent() / bindingsPerMessage
	}
	if first, again := save(), save(); first < wakeBudget/2 || again != 0 {
		t.Errorf("charged: %d, and %d for what was seen of late; a wake has %d", first, again, wakeBudget)
	}
}
