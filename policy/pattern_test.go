package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/scache/scache/internal/glob"
)

// What smtp(8) says, by its own settings: that of Postfix 3.7, but where another one is named.
var (
	plain = Labels{
		Destination: []byte("smtp\nExample.com\n"),
		Property:    []byte("destination=example.com\nhost_name=mx1.example.net\nhost_addr=192.0.2.7\ndestination_features=4096\n\n"),
		Endpoint:    []byte("smtp\n192.0.2.7\n25\n0\n"),
	}
	relay = Labels{ // with passwords, chosen by sender
		Destination: []byte("relay\nuser@sender.test\n[smtp.relay.test]:587\n"),
		Property:    []byte("destination=[smtp.relay.test]:587\nhost_name=smtp.relay.test\nhost_addr=2001:db8::7\ndestination_features=4096\n\n"),
		Endpoint:    []byte("relay\nuser@sender.test\n[smtp.relay.test]:587\nsmtp.relay.test\n2001:db8::7\n587\n1\n"),
	}
	local = Labels{ // a path
		Destination: []byte("lmtp\nunix:/run/dovecot/lmtp\n"),
		Endpoint:    []byte("lmtp\n/run/dovecot/lmtp\n0\n0\n"),
	}
	newer = Labels{ // 3.10
		Destination: []byte("smtp\nexample.net:587\n0\n"),
		Property:    []byte("destination=example.net:587\nhost_name=out.example.net\nhost_addr=198.51.100.7\nhost_port=587\ndestination_features=4096\n\n"),
		Endpoint:    []byte("smtp\n198.51.100.7\n587\n1\n"),
	}
	newest  = Labels{Destination: []byte("out\nuser@sender.test\n[smtp.newest.test]:587\n*\n0\n0\n"), Endpoint: []byte("out\n198.51.100.8\n587\n*\n0\n0\n")} // 3.11, as if built without TLS
	linked  = Labels{Destination: []byte("smtp\n2525\n0\n"), Endpoint: []byte("smtp\nfe80::7%eth0\n25\n0\n")}                                                // 3.10, a link-local address, and a number for a name
	alone   = Labels{Endpoint: []byte("smtp\n::ffff:192.0.2.7\n25\n0\n")}                                                                                    // no destination
	foreign = Labels{Destination: []byte("example.com"), Endpoint: []byte("192.0.2.7:25")}
	turned  = Labels{Destination: foreign.Endpoint, Endpoint: foreign.Destination}
	blank   = Labels{Destination: []byte{}, Endpoint: []byte{}}
	nothing = Labels{Endpoint: []byte{}}
)

func TestMatch(t *testing.T) {
	everyone := map[string]Labels{"plain": plain, "relay": relay, "local": local, "newer": newer, "newest": newest, "linked": linked, "alone": alone, "foreign": foreign, "turned": turned, "blank": blank, "nothing": nothing}
	for _, test := range []struct{ patterns, matches string }{
		{"*", "plain relay local newer newest linked alone foreign turned blank nothing"},
		{"destination=*", "plain relay local newer newest linked foreign turned blank"},
		{"destination=example.com", "plain foreign"},
		{"destination=EXAMPLE.COM", "plain foreign"},
		{"destination=*.example.com", ""},
		{"destination=*example.com", "plain foreign"},
		{"destination=e*.c?m", "plain foreign"},
		{"destination=smtp", ""},
		{"destination=*sender*", ""},
		{"destination=smtp.relay.test", "relay"},
		{"destination=[smtp.relay.test]:587", "relay"},
		{"destination=[smtp.relay.test]", ""},
		{"destination=unix:/run/*", "local"},
		{"destination=unix", ""},
		{`destination=smtp\nexample.com\n`, "plain"},
		{`destination=relay\n*\n*\n`, "relay"},
		{"destination=example.net", "newer"},
		{"destination=example.net:587", "newer"},
		{"destination=*.newest.test,[smtp.newest.test]:587", "newest"},
		{"destination=0", ""},
		{"destination=2525", "linked"},
		{`destination=smtp\nexample.net:587\n*`, "newer"},
		{"destination=192.0.2.7:25", "turned"},
		{"destination=192.0.2.7", "turned"},
		{"destination=nobody,example.com", "plain foreign"},
		{"host=mx*.example.net", "plain"},
		{"host=*", "plain relay newer"},
		{"address=192.0.2.7", "plain alone"},
		{"address=192.0.2.0/24", "plain alone"},
		{"address=::ffff:192.0.2.7", "plain alone"},
		{"address=::ffff:192.0.2.0/120", "plain alone"},
		{"address=::ffff:192.0.3.0/120", ""},
		{"address=::ffff:0:0/96", "plain newer newest alone"},
		{"address=fe80::/10", "linked"},
		{"address=192.0.3.0/24", ""},
		{"address=0.0.0.0/0", "plain newer newest alone"},
		{"address=2001:db8::/32,192.0.2.7", "plain relay alone"},
		{"address=2001:db8::/112", "relay"},
		{"service=smtp", "plain newer linked alone"},
		{"service=*", "plain relay local newer newest linked alone"},
		{"service=smtp destination=example.com", "plain"},
		{"service=smtp destination=smtp.relay.test", ""},
		{`endpoint=smtp\n*\n25\n?\n`, "plain linked alone"},
		{`endpoint=*\n1\n`, "relay newer"},
		{"endpoint=192.0.2.7:25", "foreign"},
		{"endpoint=*", "plain relay local newer newest linked alone foreign turned blank nothing"},
	} {
		p := parse(t, test.patterns+" ttl=1s")
		for name, l := range everyone {
			want := strings.Contains(test.matches, name)
			for range 2 { // searched, and then remembered
				if got := match(p, l) != nil; got != want {
					t.Errorf("%s matches %s: %v", test.patterns, name, got)
				}
			}
		}
	}
}

func TestFirstMatchCounts(t *testing.T) {
	p := parse(t, "destination=example.com ttl=1s\naddress=192.0.2.0/24 ttl=2s\n* ttl=3s")
	for _, test := range []struct {
		labels Labels
		line   int
	}{{plain, 1}, {alone, 2}, {relay, 3}, {plain, 1}} {
		if r := match(p, test.labels); r == nil || r.Line != test.line {
			t.Errorf("%q: %v, want line %d", test.labels, r, test.line)
		}
	}
}

// Hosts of one destination, behind one endpoint, have rules of their own, whatever stands behind theirs in the file.
func TestManyHosts(t *testing.T) {
	p := parse(t, "host=a.test ttl=1s\nhost=b.test ttl=2s\ndestination=* ttl=3s")
	l := plain
	for range 2 { // searched, and then remembered
		for property, want := range map[string]int{"host_name=a.test\n\n": 1, "host_name=b.test": 2, "host_name=a.tes": 3, "": 3} {
			l.Property = []byte(property)
			if r := match(p, l); r == nil || r.Line != want {
				t.Errorf("%q: %v, want line %d", property, r, want)
			}
		}
	}
}

// More labels than are remembered get their own rules all the same.
func TestManyLabels(t *testing.T) {
	p := parse(t, "destination=*7.test ttl=1s\nhost=*3 ttl=2s")
	for round := range 2 {
		for i := range 3 * maxSeen {
			l := Labels{
				Destination: fmt.Appendf(nil, "smtp\n%d.test\n", i%100),
				Property:    fmt.Appendf(nil, "host_name=%d\n", i),
				Endpoint:    fmt.Appendf(nil, "smtp\n%d\n25\n0\n", i),
			}
			want := 0
			switch {
			case i%10 == 7:
				want = 1
			case i%10 == 3:
				want = 2
			}
			line := 0
			if r := match(p, l); r != nil {
				line = r.Line
			}
			if line != want {
				t.Fatalf("round %d, label %d: line %d, want %d", round, i, line, want)
			}
		}
	}
}

// What is longer than smtp(8)'s matches no glob, in time that is bounded.
func TestLongLabels(t *testing.T) {
	long := []byte(strings.Repeat("a", 1<<20))
	l := Labels{Destination: long, Property: append([]byte("host_name="), long...), Endpoint: long}
	p := parse(t, "destination=*a*a*a*b ttl=1s\nhost=*b ttl=1s\nendpoint=*a ttl=1s\naddress=::/0 ttl=1s\n* ttl=1s")
	if r := match(p, l); r == nil || r.Line != 5 {
		t.Errorf("%v matches", r)
	}
}

// A label takes no longer than its length asks for, however many its fields and the rules: neither of these
// would end otherwise.
func TestManyRules(t *testing.T) {
	p := parse(t, strings.Repeat("destination=a.test"+strings.Repeat(",b.test", 1000)+" ttl=1s\n", 100)+"* ttl=1s")
	l := Labels{Destination: []byte("smtp\na:" + strings.Repeat("x", 4<<20))}
	if r := match(p, l); r == nil || r.Line != 101 {
		t.Errorf("%v matches", r)
	}
}

// No more fields are taken for the kind of session than smtp(8) writes.
func TestManyFields(t *testing.T) {
	p := parse(t, "destination=*.test ttl=1s\ndestination=example.com ttl=1s\n* ttl=1s")
	for kinds, want := range map[int]int{0: 2, maxKinds: 2, maxKinds + 1: 3, 2 << 20: 3} {
		l := Labels{Destination: []byte("smtp\nexample.com\n" + strings.Repeat("1\n", kinds))}
		if r := match(p, l); r == nil || r.Line != want {
			t.Errorf("%d fields: %v matches, want line %d", kinds, r, want)
		}
	}
}

// What a look at the rules may have taken is told, and nothing for what was seen of late.
func TestSteps(t *testing.T) {
	p := parse(t, "destination=ab,c ttl=1s\nendpoint=xyz address=192.0.2.1 ttl=1s")
	l := Labels{Destination: []byte("1234"), Endpoint: []byte("xyz")}
	for _, want := range []int{2*(2+1)*4 + 3*3 + 1, 0} { // with and without brackets and port
		if _, steps := p.Match(l); steps != want {
			t.Errorf("%d steps, want %d", steps, want)
		}
	}
}

// What is too long is not compared in parts.
func TestLongParts(t *testing.T) {
	p := parse(t, "destination=* ttl=1s\nhost=mx.example.c ttl=1s\naddress=192.0.2.7 ttl=1s\n* ttl=1s")
	long := strings.Repeat("x", glob.MaxText)
	cut := "destination=" + strings.Repeat("y", glob.MaxText-len("destination=\nhost_name=mx.example.c"))
	for _, l := range []Labels{
		{Destination: []byte("smtp\na:" + long)},
		{Destination: []byte("smtp\n[a]" + long + "\n")},
		{Property: []byte(cut + "\nhost_name=mx.example.com\n")},
		{Endpoint: []byte("smtp\n192.0.2.7\n" + long)},
	} {
		if r := match(p, l); r == nil || r.Line != 4 {
			t.Errorf("%.20q: %v matches", l.Destination, r)
		}
	}
}

func TestNothingIsAllocatedForWhatWasSeen(t *testing.T) {
	p := parse(t, "destination=nobody ttl=1s\nhost=nobody ttl=1s\naddress=10.0.0.0/8 ttl=1s\n* ttl=2s")
	if n := testing.AllocsPerRun(1000, func() {
		match(p, plain)
		match(p, relay)
		match(p, alone)
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// BenchmarkMatch is the cost of a rule, with labels never seen before, and of labels
// seen lately.
func BenchmarkMatch(b *testing.B) {
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, "destination=%d.test,*.%d.test ttl=5s\n", i, i)
	}
	p, err := Parse("file", []byte(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("seen", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			match(p, plain)
		}
	})
	b.Run("rules=100", func(b *testing.B) {
		b.ReportAllocs()
		v := p.view(plain)
		for b.Loop() {
			p.search(v)
		}
	})
}
