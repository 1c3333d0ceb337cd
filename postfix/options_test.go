package postfix

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseOptions(t *testing.T) {
	base := options{Sockets: 1}
	with := func(change func(*options)) options {
		o := base
		change(&o)
		return o
	}
	for _, c := range []struct {
		args string
		want options
	}{
		{"", base},
		{"-l -t unix -u -c", with(func(o *options) {
			o.Alone, o.Transport, o.Unprivileged, o.Chroot = true, "unix", true, true
		})},
		{"-l -n conncache -tunix", with(func(o *options) {
			o.Alone, o.Service, o.Transport = true, "conncache", "unix"
		})},
		{"-luvv", with(func(o *options) { o.Alone, o.Unprivileged, o.Verbose = true, true, 2 })},
		{"-lnfoo", with(func(o *options) { o.Alone, o.Service = true, "foo" })},
		{"-zdDSV", with(func(o *options) {
			o.Foreground, o.Debug, o.Stdin, o.Stderr = true, true, true, true
		})},
		{"-o max_idle=3 -i 5 -m7 -o a=", with(func(o *options) {
			o.Overrides = []string{"max_idle=3", "max_idle=5", "max_use=7", "a="}
		})},
		{"-s 2x", with(func(o *options) { o.Sockets = 2 })},
		{"-t -l", with(func(o *options) { o.Transport = "-l" })},
		{"-l -- -u", with(func(o *options) { o.Alone, o.Args = true, []string{"-u"} })},
		{"-l surplus -u", with(func(o *options) { o.Alone, o.Args = true, []string{"surplus", "-u"} })},
		{"-l - -u", with(func(o *options) { o.Alone, o.Args = true, []string{"-", "-u"} })},
	} {
		got, err := parseOptions(strings.Fields(c.args))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q:\n got %+v, %v\nwant %+v", c.args, got, err, c.want)
		}
	}
}

// A word of master.cf in braces reaches the program as one word with blanks.
func TestParseOptionsBlanks(t *testing.T) {
	got, err := parseOptions([]string{"-o", "  max_idle =  3 s\t", "-osyslog_name = a = b"})
	if err != nil {
		t.Fatal(err)
	}
	wantSlice(t, "overrides", got.Overrides, []string{"max_idle=3 s", "syslog_name=a = b"})
}

func TestParseOptionsErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-q"}, "invalid option: q"},
		{[]string{"-lq"}, "invalid option: q"},
		{[]string{"-:"}, "invalid option: :"},
		{[]string{"--long"}, "invalid option: -"},
		{[]string{"-\xff"}, "invalid option: \xff"},
		{[]string{"-o"}, "invalid option: o"},
		{[]string{"-lt"}, "invalid option: t"},
		{[]string{"-o", "x"}, `invalid "-o x" option value: missing '=' after attribute name`},
		{[]string{"-o", "a b=c"}, `invalid "-o a b=c" option value: missing '=' after attribute name`},
		{[]string{"-o", " = c"}, `invalid "-o  = c" option value: missing attribute name`},
		{[]string{"-o", ""}, `invalid "-o " option value: missing attribute name`},
		{[]string{"-s", "0"}, "invalid socket_count: 0"},
		{[]string{"-s", "-3"}, "invalid socket_count: -3"},
		{[]string{"-sfew"}, "invalid socket_count: few"},
	} {
		_, err := parseOptions(c.args)
		if err == nil || err.Error() != c.want {
			t.Errorf("%q: error %v, want %s", c.args, err, c.want)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add("-l -t unix -u -c -o a=b")
	f.Fuzz(func(t *testing.T, line string) {
		o, err := parseOptions(strings.Split(line, " "))
		if err != nil {
			return
		}
		if o.Sockets < 1 {
			t.Errorf("%q: %d sockets", line, o.Sockets)
		}
		for _, override := range o.Overrides {
			if !strings.Contains(override, "=") {
				t.Errorf("%q: override %q", line, override)
			}
		}
	})
}
