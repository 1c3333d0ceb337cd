package proto

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// wire writes a message as the tests do: attributes as "name=value".
func wire(attributes ...string) []byte {
	var msg []byte
	for _, a := range attributes {
		name, value, _ := strings.Cut(a, "=")
		msg = appendAttribute(msg, name, value)
	}
	return append(msg, 0)
}

var requests = []struct {
	msg  []byte
	want Request
}{
	{wire(), Request{Op: None}},
	{wire("dummy="), Request{Op: Dummy}},
	{wire("dummy=5", "label=x"), Request{Op: Dummy}},
	{wire("label=x", "request=find_endp"), Request{Op: None}},
	{wire("Request=find_endp", "label=x"), Request{Op: None}},
	{wire("request="), Request{Op: Unknown}},
	{wire("request=FIND_ENDP", "label=x"), Request{Op: Unknown}},
	{wire("request=find_endp ", "label=x"), Request{Op: Unknown}},
	{wire("request=find_endp", "label=x"), Request{Op: FindEndpoint, Endpoint: []byte("x")}},
	{wire("request=find_endp", "label="), Request{Op: FindEndpoint, Endpoint: []byte("")}},
	{wire("request=find_endp", "label=x", "label=y"), Request{Op: FindEndpoint, Endpoint: []byte("x")}},
	{wire("request=find_endp", "label=x", "other=y"), Request{Op: FindEndpoint, Endpoint: []byte("x")}},
	{wire("request=find_endp"), Request{Op: FindEndpoint, Malformed: true}},
	{wire("request=find_endp", "other=y", "label=x"), Request{Op: FindEndpoint, Malformed: true}},
	{wire("request=find_endp", "LABEL=x"), Request{Op: FindEndpoint, Malformed: true}},
	{wire("request=find_dest", "label=x\ny\n"), Request{Op: FindDestination, Destination: []byte("x\ny\n")}},
	{wire("request=find_dest"), Request{Op: FindDestination, Malformed: true}},
	{wire("request=save_endp", "ttl=5", "label=x", "property=p"),
		Request{Op: SaveEndpoint, TTL: 5, Endpoint: []byte("x"), EndpointProperty: []byte("p")}},
	{wire("request=save_endp", "ttl=5", "ttl=5", "label=x", "property=p"), Request{Op: SaveEndpoint, TTL: 5, Malformed: true}},
	{wire("request=save_endp", "label=x", "ttl=5", "property=p"), Request{Op: SaveEndpoint, Malformed: true}},
	{wire("request=save_endp", "ttl=5", "label=x"), Request{Op: SaveEndpoint, TTL: 5, Endpoint: []byte("x"), Malformed: true}},
	{wire("request=save_dest", "ttl=7", "label=d", "property=p", "label=e"),
		Request{Op: SaveDestination, TTL: 7, Destination: []byte("d"), DestinationProperty: []byte("p"), Endpoint: []byte("e")}},
	{wire("request=save_dest", "ttl=7", "label=d", "property=p"),
		Request{Op: SaveDestination, TTL: 7, Destination: []byte("d"), DestinationProperty: []byte("p"), Malformed: true}},
}

func TestDecodeRequest(t *testing.T) {
	for _, c := range requests {
		if got := DecodeRequest(c.msg); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q: %v, want %v", c.msg, got, c.want)
		}
	}
}

// The TTL texts of Postfix's own server, and what it makes of them.
func TestTTL(t *testing.T) {
	for text, want := range map[string]int{
		"1": 1, "05": 5, "2147483647": 2147483647, "0000000000000000000000005": 5,
		"0": 0, "-1": 0, "": 0, "abc": 0, "5x": 0, "5 ": 0, "5\n": 0, "1.5": 0, "0x10": 0, "1e3": 0,
		"2147483648": 0, "4294967295": 0, "4294967296": 0, "99999999999999999999": 0,
		"18446744073709551621": 0, // 5, if it wrapped around
	} {
		r := DecodeRequest(wire("request=save_endp", "ttl="+text, "label=x", "property=p"))
		if r.TTL != want && want > 0 || r.Malformed != (want == 0) {
			t.Errorf("%q: %d, malformed %v; want %d", text, r.TTL, r.Malformed, want)
		}
	}
}

func TestClientRequestsDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.RuneFrom([]rune("ab\n=\x01\xff")))
		a, b, c := text.Draw(t, "a"), text.Draw(t, "b"), text.Draw(t, "c")
		ttl := rapid.IntRange(1, 1<<31-1).Draw(t, "ttl")
		for _, x := range []struct {
			msg  []byte
			want Request
		}{
			{AppendSaveEndpoint(nil, ttl, a, b), Request{Op: SaveEndpoint, TTL: ttl, Endpoint: []byte(a), EndpointProperty: []byte(b)}},
			{AppendFindEndpoint(nil, a), Request{Op: FindEndpoint, Endpoint: []byte(a)}},
			{AppendSaveDestination(nil, ttl, a, b, c), Request{Op: SaveDestination, TTL: ttl, Destination: []byte(a), DestinationProperty: []byte(b), Endpoint: []byte(c)}},
			{AppendFindDestination(nil, a), Request{Op: FindDestination, Destination: []byte(a)}},
		} {
			if got := DecodeRequest(x.msg); fmt.Sprint(got) != fmt.Sprint(x.want) {
				t.Errorf("%q: %v, want %v", x.msg, got, x.want)
			}
			var next Request
			if n := next.DecodeNext(append(x.msg, b...)); n != len(x.msg) || fmt.Sprint(next) != fmt.Sprint(x.want) {
				t.Errorf("%q and more: %v of length %d, want %v", x.msg, next, n, x.want)
			}
		}
	})
}

func TestReplies(t *testing.T) {
	p, q := []byte("p"), []byte("q\n")
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{AppendStatus(nil, OK), "status\x000\x00\x00"},
		{AppendFailure(nil, SaveEndpoint, Failed), "status\x002\x00\x00"},
		{AppendFailure(nil, Unknown, Bad), "status\x001\x00\x00"},
		{AppendEndpointReply(nil, OK, p), "status\x000\x00property\x00p\x00\x00"},
		{AppendFailure(nil, FindEndpoint, Failed), "status\x002\x00property\x00\x00\x00"},
		{AppendDestinationReply(nil, OK, p, q), "status\x000\x00property\x00p\x00property\x00q\n\x00\x00"},
		{AppendFailure(nil, FindDestination, Bad), "status\x001\x00property\x00\x00property\x00\x00\x00"},
	} {
		if string(c.got) != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	r, ok := DecodeReply(AppendDestinationReply(nil, OK, p, q))
	if !ok || r.Status != OK || string(r.Properties[0]) != "p" || string(r.Properties[1]) != "q\n" {
		t.Errorf("DecodeReply: %v %v", r, ok)
	}
	if r, ok := DecodeReply(AppendStatus(nil, Failed)); !ok || r.Status != Failed || r.Properties[0] != nil {
		t.Errorf("DecodeReply: %v %v", r, ok)
	}
	for _, msg := range [][]byte{wire(), wire("dummy="), wire("status=x"), wire("status="), wire("status=0", "other=x"), []byte("status\x000")} {
		if r, ok := DecodeReply(msg); ok {
			t.Errorf("%q is taken for a reply: %v", msg, r)
		}
	}
}

// naiveEnd returns the length of the first message in b, 0 if it has no end.
func naiveEnd(b []byte) int {
	for at, name := 0, true; ; name = !name {
		length := bytes.IndexByte(b[at:], 0)
		if length < 0 {
			return 0
		}
		at += length + 1
		if name && length == 0 {
			return at
		}
	}
}

// FuzzFramer splits any bytes anywhere: a message ends at the same place however
// it arrives, every proper prefix of it is short, and what has an end decodes
// without looking behind it.
func FuzzFramer(f *testing.F) {
	for _, r := range requests {
		f.Add(r.msg, uint16(1))
		f.Add(append(bytes.Clone(r.msg), r.msg...), uint16(len(r.msg)))
	}
	f.Add([]byte("\x00\x00\x00"), uint16(2))
	f.Add([]byte("request\x00\x00\x00"), uint16(8))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		end := naiveEnd(stream)
		var whole Framer
		n, done := whole.Next(stream)
		if done != (end > 0) || done && n != end || !done && n != len(stream) {
			t.Fatalf("Next(%q) = %d, %v; the message ends at %d", stream, n, done, end)
		}
		split := min(int(cut), len(stream))
		var framer Framer
		n, done = framer.Next(stream[:split])
		if end == 0 || split < end {
			if done || n != split {
				t.Fatalf("Next(%q) = %d, %v: a prefix is short", stream[:split], n, done)
			}
			if framer.Idle() != (split == 0) {
				t.Fatalf("Idle() = %v after %q", framer.Idle(), stream[:split])
			}
			more, done := framer.Next(stream[split:])
			if done != (end > 0) || done && split+more != end {
				t.Fatalf("split at %d: Next = %d, %v; the message ends at %d", split, more, done, end)
			}
		}
		var next Request
		if n := next.DecodeNext(stream); n > 0 && (n != end || fmt.Sprint(next) != fmt.Sprint(DecodeRequest(stream[:end]))) {
			t.Fatalf("%v of length %d; the message ends at %d", next, n, end)
		}
		if end > 0 {
			r := DecodeRequest(stream[:end:end])
			again := DecodeRequest(append(bytes.Clone(stream[:end]), "more\x00"...)[:end])
			if fmt.Sprint(r) != fmt.Sprint(again) {
				t.Fatalf("%v, %v", r, again)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	msg := AppendSaveEndpoint(nil, 2, "smtp\n192.0.2.1\n25\n0\n", strings.Repeat("property\n", 10))
	b.ReportAllocs()
	for b.Loop() {
		var framer Framer
		n, _ := framer.Next(msg)
		DecodeRequest(msg[:n])
	}
}

func BenchmarkDecodeNext(b *testing.B) {
	msg := AppendSaveEndpoint(nil, 2, "smtp\n192.0.2.1\n25\n0\n", strings.Repeat("property\n", 10))
	b.ReportAllocs()
	for b.Loop() {
		var r Request
		r.DecodeNext(msg)
	}
}
