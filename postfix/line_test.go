package postfix

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var aMoment = time.Date(2024, 11, 3, 15, 47, 5, 0, time.UTC)

func TestFormats(t *testing.T) {
	who := ident{tag: "postfix/scache", pid: 5408}
	info := record{aMoment, sevInfo, []byte("text")}
	fatal := record{aMoment, sevFatal, []byte("text")}
	for _, c := range []struct {
		name string
		f    format
		r    record
		want string
	}{
		{"postlog", postlogFormat(who, "host"), info, "Nov 03 15:47:05 host postfix/scache[5408]: text"},
		{"postlog", postlogFormat(who, "host"), fatal, "Nov 03 15:47:05 host postfix/scache[5408]: fatal: text"},
		{"syslog", syslogFormat(who, facilities["mail"]), info, "<22>Nov  3 15:47:05 postfix/scache[5408]: text"},
		{"syslog", syslogFormat(who, facilities["local7"]), fatal, "<186>Nov  3 15:47:05 postfix/scache[5408]: fatal: text"},
		{"dated", datedFormat(who), fatal, "Nov 03 15:47:05 postfix/scache[5408]: fatal: text\n"},
		{"journal", journalFormat, info, "<6>text\n"},
		{"journal", journalFormat, fatal, "<2>fatal: text\n"},
		{"json", jsonFormat(5408), info, `{"time":"2024-11-03T15:47:05.000000Z","level":"info","process":5408,"message":"text"}` + "\n"},
		{"json", jsonFormat(5408), fatal, `{"time":"2024-11-03T15:47:05.000000Z","level":"fatal","process":5408,"message":"text"}` + "\n"},
		{"bare", bareFormat(who.tag), info, "postfix/scache: text\n"},
		{"bare", bareFormat(who.tag), fatal, "postfix/scache: fatal: text\n"},
	} {
		wantEqual(t, c.name, string(c.f(nil, c.r)), c.want)
	}
}

func TestSyslogSeverities(t *testing.T) {
	f := syslogFormat(ident{"t", 1}, facilities["mail"])
	for sev, want := range map[severity]string{
		sevInfo: "<22>", sevWarning: "<20>", sevError: "<19>", sevFatal: "<18>", sevPanic: "<18>",
	} {
		wantEqual(t, "priority", string(f(nil, record{aMoment, sev, nil})[:4]), want)
	}
	wantEqual(t, "facilities", len(facilities), 20)
}

func TestMask(t *testing.T) {
	for _, c := range []struct{ in, ascii, utf8 string }{
		{"plain ~", "plain ~", "plain ~"},
		{"a\nb\tc\x00\x7f", "a?b?c??", "a?b?c??"},
		{"gr\u00fcn \u20ac", "gr??n ???", "gr\u00fcn \u20ac"},
		{"\xff\xc3(", "??(", "??("},
		{"\u0085", "??", "??"}, // a control character of Latin-1
		{"\ufffd", "???", "\ufffd"},
	} {
		wantEqual(t, "without UTF-8", string(mask([]byte(c.in), false)), c.ascii)
		wantEqual(t, "with UTF-8", string(mask([]byte(c.in), true)), c.utf8)
	}
}

func TestBound(t *testing.T) {
	wantEqual(t, "short", len(bound(make([]byte, maxText))), maxText)
	wantEqual(t, "long", len(bound(make([]byte, maxText+1))), maxText)
	cut := bound([]byte("x" + strings.Repeat("\u20ac", maxText)))
	if len(cut) > maxText || len(cut) < maxText-3 || !utf8.Valid(cut) {
		t.Errorf("cut to %d bytes, valid %v", len(cut), utf8.Valid(cut))
	}
}

// Whatever the text, a line is one JSON object, and has room in a page (see stream).
func FuzzJSON(f *testing.F) {
	f.Add([]byte("plain"))
	f.Add([]byte("a\"b\\c\nd\x00\x7f\xff\xc3("))
	f.Add([]byte("\u2028 \u0085 \ufffd \U0001f4a3 \\u12 \xed\xa0\x80"))
	f.Add([]byte(strings.Repeat(`"`, 3*maxText)))
	f.Add([]byte(strings.Repeat("\u20ac", maxText)))
	east := time.FixedZone("east", 3600)
	f.Fuzz(func(t *testing.T, text []byte) {
		masked := bound(mask(slices.Clone(text), true))
		line := jsonFormat(1<<22)(nil, record{aMoment.In(east), sevWarning, masked})
		if len(line) > 4096 || bytes.Count(line, []byte("\n")) != 1 {
			t.Fatalf("%d bytes: %q", len(line), line)
		}
		var got struct {
			Time           time.Time
			Level, Message string
			Process        int
		}
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&got); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if got.Message != string(masked) || got.Level != "warning" || got.Process != 1<<22 || !got.Time.Equal(aMoment) {
			t.Errorf("%+v of %q", got, masked)
		}
	})
}
