package server

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

var adminScripts = []struct{ name, text string }{
	{"list", `
		> "request\0admin_list\0kind\0connections\0\0"
		< "status\00\0\0"
		< "\0"
		> "request\0save_dest\0ttl\09\0label\0d\0property\0dp\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		advance 2s
		> "request\0admin_list\0kind\0connections\0\0request\0admin_list\0kind\0bindings\0\0"
		< "status\00\0\0"
		< "connection\0e\0property\0p\0age\02000\0remaining\07001\0kind\0file\0remote\0\0uses\00\0\0"
		< "\0"
		< "status\00\0\0"
		< "binding\0d\0endpoint\0e\0property\0dp\0age\02000\0remaining\07001\0\0"
		< "\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\0p\0\0"
		> "request\0admin_list\0kind\0connections\0\0"
		< "status\00\0\0"
		< "connection\0e\0property\0p\0age\02000\0remaining\07001\0kind\0file\0remote\0\0uses\01\0\0"
		< "\0"`},
	{"destinations", `
		> "request\0find_dest\0label\0d\0\0"
		< "status\02\0property\0\0property\0\0\0"
		> "request\0save_dest\0ttl\09\0label\0d\0property\0dp\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_dest\0label\0d\0\0"
		< "status\00\0property\0dp\0property\0p\0\0"
		> "request\0admin_destinations\0\0"
		< "status\00\0\0"
		< "destination\0d\0hits\01.0\0misses\01.0\0bindings\01\0connections\01\0\0"
		< "\0"`},
	{"flush", `
		> "request\0save_dest\0ttl\09\0label\0d\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0f\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 2
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0g\nh\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 3
		< "status\00\0\0"
		> "request\0admin_flush\0what\0endpoint\0value\0x\0\0request\0admin_flush\0what\0destination\0value\0x\0\0"
		< "status\00\0connections\00\0bindings\00\0\0status\00\0connections\00\0bindings\00\0\0"
		> "request\0admin_flush\0what\0endpoint\0value\0f\0\0"
		< "status\00\0connections\01\0bindings\00\0\0"
		> "request\0admin_flush\0what\0pattern\0value\0g?*\0\0"
		< "status\00\0connections\01\0bindings\00\0\0"
		> "request\0admin_flush\0what\0destination\0value\0d\0\0"
		< "status\00\0connections\01\0bindings\01\0\0"
		> "request\0save_dest\0ttl\09\0label\0d\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 4
		< "status\00\0\0"
		> "request\0admin_flush\0what\0all\0value\0\0\0"
		< "status\00\0connections\01\0bindings\01\0\0"
		> "request\0find_dest\0label\0d\0\0"
		< "status\02\0property\0\0property\0\0\0"`},
	{"flush by a pattern: also a binding whose endpoint alone matches, or whose destination", `
		> "request\0save_dest\0ttl\09\0label\0d\0property\0\0label\0e\0\0request\0save_dest\0ttl\09\0label\0f\0property\0\0label\0g\0\0"
		< "status\00\0\0status\00\0\0"
		> "request\0admin_flush\0what\0pattern\0value\0e\0\0"
		< "status\00\0connections\00\0bindings\01\0\0"
		> "request\0admin_flush\0what\0pattern\0value\0f\0\0"
		< "status\00\0connections\00\0bindings\01\0\0"`},
	{"pause", `
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0admin_pause\0\0request\0admin_pause\0\0"
		< "status\00\0paused\01\0\0status\00\0paused\01\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 2
		< "status\00\0\0"
		> "request\0save_dest\0ttl\09\0label\0d\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0find_dest\0label\0d\0\0"
		< "status\02\0property\0\0property\0\0\0"
		> "request\0admin_resume\0\0"
		< "status\00\0paused\00\0\0"
		> "request\0find_dest\0label\0d\0\0"
		< "status\02\0property\0\0property\0\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\0p\0\0"
		> "dummy\0\0\0"
		< fd 1
		> "dummy\0\0\0request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"`},
	{"limits", `
		> "request\0admin_set_limit\0name\0connection_cache_ttl_limit\0value\03\0\0"
		< "status\00\0connection_cache_ttl_limit\03\0connection_cache_size_limit\00\0connection_cache_endpoint_limit\00\0connection_cache_binding_limit\00\0connection_cache_destination_limit\00\0connection_cache_text_limit\00\0connection_cache_client_memory_limit\01048576\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		advance 3100ms
		> "request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"`},
	{"refused", `
		> "request\0admin_list\0kind\0wishes\0\0"
		< "status\02\0reason\0there is no list of \"wishes\", but of connections, and of bindings\0\0"
		> "request\0admin_flush\0what\0some\0value\0\0\0"
		< "status\02\0reason\0cannot flush \"some\", but all, endpoint, destination, pattern\0\0"
		> "request\0admin_set_limit\0name\0speed\0value\01\0\0"
		< "status\02\0reason\0there is no limit \"speed\"\0\0"
		> "request\0admin_set_limit\0name\0connection_cache_text_limit\0value\00\0\0"
		< "status\02\0reason\0connection_cache_text_limit: 0 is not from 1 to 2147483647\0\0"
		> "request\0admin_set_limit\0name\0connection_cache_text_limit\0value\0x\0\0"
		< "status\02\0reason\0connection_cache_text_limit: \"x\" is not a number\0\0"`},
	{"malformed", `
		> "request\0admin_list\0\0request\0admin_flush\0value\0x\0what\0all\0\0request\0admin_set_limit\0name\0x\0\0"
		< "status\01\0\0status\01\0\0status\01\0\0"
		> "request\0admin_\0\0request\0admin_lists\0kind\0bindings\0\0request\0Admin_pause\0\0"
		< "status\01\0\0status\01\0\0status\01\0\0"
		> "request\0admin_pau"
		end`},
	{"cut short by the end of file", `
		> "request\0admin_pause\0more"
		end
		< "status\01\0\0"`},
}

func TestAdminScripts(t *testing.T) {
	for _, s := range adminScripts {
		t.Run(s.name, func(t *testing.T) { playAtEverySplit(t, s.text) })
	}
}

// Who may not, may not do any of it, and can read why.
func TestAdminDenied(t *testing.T) {
	p := newPlayer(t)
	p.session.cache.administrator = func(int) string { return "because" }
	requests := [][]byte{
		proto.AppendAdmin(nil, proto.AdminStatistics), proto.AppendAdmin(nil, proto.AdminDestinations),
		proto.AppendAdmin(nil, proto.AdminList, "bindings"), proto.AppendAdmin(nil, proto.AdminFlush, "all", ""),
		proto.AppendAdmin(nil, proto.AdminPause), proto.AppendAdmin(nil, proto.AdminResume),
		proto.AppendAdmin(nil, proto.AdminLimits), proto.AppendAdmin(nil, proto.AdminSetLimit, "connection_cache_size_limit", "1"),
	}
	for _, request := range requests {
		p.deliver(request, -1)
		p.want(step{}, "status\x003\x00reason\x00because\x00\x00")
	}
	if c := p.session.cache; c.paused || c.limits.Connections != 0 || c.counters.denied != len(requests) {
		t.Errorf("paused: %v, limits: %+v, denied: %d", c.paused, c.limits, c.counters.denied)
	}
}

// numbers reads the reply to admin_statistics, and wants the names that are documented,
// in their order.
func numbers(t *testing.T, reply string) map[string]int {
	t.Helper()
	status, rest, ok := proto.DecodeStatus([]byte(reply))
	if !ok || status != proto.OK {
		t.Fatalf("no statistics: %q", reply)
	}
	for _, text := range []string{"version", "cache"} {
		name, _, next, ok := proto.Attribute(rest)
		if !ok || string(name) != text {
			t.Fatalf("%q where %s belongs", name, text)
		}
		rest = next
	}
	values := map[string]int{}
	for _, s := range proto.Statistics {
		name, value, next, ok := proto.Attribute(rest)
		n, err := strconv.Atoi(string(value))
		if !ok || string(name) != s.Name || err != nil {
			t.Fatalf("%q %q where %s belongs", name, value, s.Name)
		}
		values[s.Name], rest = n, next
	}
	if string(rest) != "\x00" {
		t.Fatalf("%q is more than there should be", rest)
	}
	return values
}

// addUp holds the two laws: what is saved leaves once, and what is found is taken, put
// back, or on its way.
func addUp(t *testing.T, n map[string]int) {
	t.Helper()
	left := 0
	for name, value := range n {
		if strings.HasPrefix(name, "closed_") {
			left += value
		}
	}
	if n["connections_saved"] != left+n["connections"]+n["connections_found"] {
		t.Fatalf("saved %d, left %d, cached %d, found %d", n["connections_saved"], left, n["connections"], n["connections_found"])
	}
	if hits := n["endpoint_hits"] + n["destination_hits"]; hits != n["closed_taken"]+n["connections_put_back"]+n["connections_found"] || hits != n["found_age_ms_le_inf"] {
		t.Fatalf("found %d: %d taken, %d put back, %d on their way, %d in the histogram",
			hits, n["closed_taken"], n["connections_put_back"], n["connections_found"], n["found_age_ms_le_inf"])
	}
	if n["bindings_saved"] != n["bindings_expired"]+n["bindings_displaced"]+n["bindings_flushed"]+n["bindings"] || n["bindings_expired"] < 0 {
		t.Fatalf("bindings: %v", n)
	}
}

func TestStatisticsTell(t *testing.T) {
	p := newPlayer(t)
	p.play(parseScript(t, `
		> "request\0save_endp\0ttl\09\0label\0e\0property\0\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0save_dest\0ttl\09\0label\0d\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0save_dest\0ttl\09\0label\0d\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		advance 1s
		> "request\0find_dest\0label\0d\0\0"
		< "status\00\0property\0\0property\0\0\0"
		> "\0request\0find_endp\0label\0e\0\0"
		< "status\00\0property\0\0\0"
		> "dummy\0\0\0"
		< fd 1
		> "dummy\0\0\0request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"
		> "request\0save_endp\0ttl\01\0label\0e\0property\0\0\0"
		< "dummy\0\0\0"
		> fd 2
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\0\0\0"
		< "dummy\0\0\0"
		> fd 3
		< "status\00\0\0"
		advance 2s`), func(int) bool { return false })
	p.session.cache.reportStatistics() // takes nothing away
	p.play(parseScript(t, `
		> "request\0find_endp\0label\0x\0\0"
		< "status\02\0property\0\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\0\0\0"`), func(int) bool { return false })
	n := numbers(t, string(p.session.cache.appendStatistics(nil)))
	addUp(t, n)
	for name, want := range map[string]int{
		"connections_saved": 3, "destination_hits": 1, "endpoint_hits": 2, "endpoint_misses": 2, "destination_misses": 0,
		"connections_put_back": 1, "closed_taken": 1, "closed_expired": 1, "connections_found": 1, "connections": 0, "connections_peak": 2,
		"bindings_saved": 1, "bindings_refreshed": 1, "bindings": 1, "requests": 10,
		"found_age_ms_le_500": 0, "found_age_ms_le_1000": 2, "found_age_ms_le_2000": 3, "found_age_ms_sum": 4000,
	} {
		if n[name] != want {
			t.Errorf("%s is %d, want %d", name, n[name], want)
		}
	}
	p.finish()
}

// Of 100,000 connections a few leave at a time, in whatever way they are meant.
func TestFlushIsDoneInPortions(t *testing.T) {
	const many = 100_000
	for _, request := range [][]byte{
		proto.AppendAdmin(nil, proto.AdminFlush, "all", ""),
		proto.AppendAdmin(nil, proto.AdminFlush, "endpoint", "e"),
		proto.AppendAdmin(nil, proto.AdminFlush, "destination", "d"),
		proto.AppendAdmin(nil, proto.AdminFlush, "pattern", "*e"),
	} {
		closed := 0
		c := pureCache(1000, func(int) { closed++ })
		s := session{cache: c}
		save := func(fd int) {
			c.store.Save(c.store.Prepare([]byte("e"), nil), fd, 1000)
			c.store.SaveDestination([]byte("d"), fmt.Append(nil, fd), []byte("e"), 1000)
		}
		for fd := range many {
			save(fd)
		}
		in, most := input{bytes: request, fd: -1}, 0
		for steps := 0; ; steps++ {
			before := closed - c.store.Size().Bindings
			if !s.step(&in) {
				break
			}
			most = max(most, closed-c.store.Size().Bindings-before)
			if steps < 100 {
				save(many + steps)
			}
		}
		later := c.store.Size().Connections
		if most > 2 || later != 100 || closed != many {
			t.Errorf("%q: %d at a time; %d in all, of %d; %d stay that came later", request, most, closed, many, later)
		}
		if got := string(s.out); !strings.Contains(got, fmt.Sprintf("connections\x00%d\x00", many)) {
			t.Errorf("%q", got)
		}
	}
}

// What is saved while a flush is done stays, connection and binding, so that the flush ends.
func TestFlushLeavesWhatComesMeanwhile(t *testing.T) {
	for _, of := range []struct {
		what, value string
		bindings    int // that stay
	}{{"endpoint", "e", 3}, {"destination", "d", 1}, {"all", "", 1}, {"pattern", "*", 1}} {
		c := pureCache(1000, func(int) {})
		s := session{cache: c}
		save := func(fd int) {
			c.store.Save(c.store.Prepare([]byte("e"), nil), fd, 1000)
			c.store.SaveDestination([]byte("d"), fmt.Append(nil, fd), []byte("e"), 1000)
		}
		save(1)
		save(2)
		in := input{bytes: proto.AppendAdmin(nil, proto.AdminFlush, of.what, of.value), fd: -1}
		for range 2 { // the request, and a portion
			if !s.step(&in) {
				t.Fatalf("%s: it is done before anything was saved", of.what)
			}
		}
		save(3)
		for s.step(&in) {
		}
		if size := c.store.Size(); size.Connections != 1 || size.Bindings != of.bindings {
			t.Errorf("%s: %+v stays, want 1 connection, and %d bindings", of.what, size, of.bindings)
		}
	}
}

// A lower limit holds for what is kept already.
func TestLoweredClientMemory(t *testing.T) {
	r := run(t, func(c *Config) { c.ClientMemory = 64 << 20 })
	c, operator := r.dial(), r.dial()
	defer unix.Close(c)
	defer unix.Close(operator)
	say(c, "request\x00find_endp\x00label\x00"+strings.Repeat("x", 100_000))
	for len(ask(t, operator, proto.AdminStatistics)["client_memory_bytes"]) < len("100000") {
		time.Sleep(time.Millisecond)
	}
	ask(t, operator, proto.AdminSetLimit, "connection_cache_client_memory_limit", "50000")
	expectEnd(t, c, "")
	if n := ask(t, operator, proto.AdminStatistics)["clients_disconnected"]; n != "1" {
		t.Errorf("%s clients were disconnected", n)
	}
}

// Many leave in portions.
func TestLoweredClientMemoryOfMany(t *testing.T) {
	s := newHandClient(t).conn.server
	const many = 3 * relievedAtOnce
	for range many {
		ours, theirs, err := socketpair()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(theirs) })
		c := newConn(s, s.caches[0], ours)
		if err := s.admit(c); err != nil {
			t.Fatal(err)
		}
		s.descriptors.open++
		say(theirs, "request\x00find_endp\x00label\x00x")
		c.Ready(ours, false)
	}
	if err := s.caches[0].setLimit("connection_cache_client_memory_limit", 1); err != nil {
		t.Fatal(err)
	}
	for left := many; left > 0; {
		left -= relievedAtOnce
		if s.continueLowering(); len(s.clients) != left+1 {
			t.Fatalf("%d clients, want %d", len(s.clients), left+1)
		}
	}
	if s.continueLowering(); s.caches[0].lowering != nil {
		t.Error("it goes on")
	}
}

// A server may begin with a mistake: it answers, keeps nothing, and says why, with the statistics and to
// who wants it to go on.
func TestBeginsWithAMistake(t *testing.T) {
	r := run(t, func(c *Config) { c.Mistake, c.StatusUpdateTime = errors.New("line 7"), 50*time.Millisecond })
	client := r.dial()
	defer unix.Close(client)
	say(client, "request\x00save_dest\x00ttl\x0050\x00label\x00d\x00property\x00\x00label\x00e\x00\x00")
	expect(t, client, "status\x000\x00\x00")
	waitFor(t, func() bool { return strings.Contains(r.log.from(0), "nothing is cached: line 7") })
	for range 2 {
		say(client, string(proto.AppendAdmin(nil, proto.AdminResume)))
		expect(t, client, string(proto.AppendRefusal(nil, proto.Failed, "nothing is cached until this is mended and Postfix reloaded: line 7")))
		if n := ask(t, client, proto.AdminStatistics); n["paused"] != "1" || n["bindings"] != "0" || n["bindings_ignored"] != "1" {
			t.Errorf("statistics %v", n)
		}
		ask(t, client, proto.AdminPause) // which it is
	}
}

// Of an argument, however long, a line in the log has the beginning, and so has a refusal: to quote all
// of it would keep all clients waiting.
func TestLongArgumentsAreNotQuoted(t *testing.T) {
	long := strings.Repeat("\x01", 1<<20)
	for _, request := range [][]byte{
		proto.AppendAdmin(nil, proto.AdminFlush, "endpoint", long),
		proto.AppendAdmin(nil, proto.AdminFlush, long, ""),
		proto.AppendAdmin(nil, proto.AdminList, long),
		proto.AppendAdmin(nil, proto.AdminSetLimit, "connection_cache_ttl_limit", long),
		proto.AppendAdmin(nil, proto.AdminSetLimit, "connection_cache_ttl_limit", strings.Repeat("0", 1<<20)+"x"),
		proto.AppendAdmin(nil, proto.AdminSetLimit, long, "1"),
	} {
		log := &logbook{}
		s := session{cache: pureCache(1000, func(int) {})}
		s.cache.log = log
		in := input{bytes: request, fd: -1}
		for s.step(&in) {
		}
		if logged := log.from(0); len(s.out) == 0 || len(s.out)+len(logged) > 10_000 {
			t.Errorf("%.40q: %d bytes are answered, %d logged", request, len(s.out), len(logged))
		}
	}
}
