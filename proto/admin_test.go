package proto

import (
	"fmt"
	"regexp"
	"slices"
	"testing"
)

func TestDecodeAdmin(t *testing.T) {
	for _, c := range []struct {
		msg  []byte
		want AdminRequest
		ok   bool
	}{
		{AppendAdmin(nil, AdminStatistics), AdminRequest{Op: AdminStatistics}, true},
		{AppendAdmin(nil, AdminList, "bindings"), AdminRequest{Op: AdminList, Subject: []byte("bindings")}, true},
		{AppendAdmin(nil, AdminFlush, "pattern", "a*\n"), AdminRequest{Op: AdminFlush, Subject: []byte("pattern"), Value: []byte("a*\n")}, true},
		{AppendAdmin(nil, AdminSetLimit, "x", "1"), AdminRequest{Op: AdminSetLimit, Subject: []byte("x"), Value: []byte("1")}, true},
		{wire("request=admin_pause", "later=more"), AdminRequest{Op: AdminPause}, true},
		{wire("request=admin_list"), AdminRequest{Op: AdminList}, false},
		{wire("request=admin_list", "kinds=bindings"), AdminRequest{Op: AdminList}, false},
		{wire("request=admin_flush", "value=x", "what=all"), AdminRequest{Op: AdminFlush}, false},
		{wire("request=admin_flush", "what=all"), AdminRequest{Op: AdminFlush, Subject: []byte("all")}, false},
		{wire("request=admin_"), AdminRequest{}, false},
		{wire("request=admin_pauses"), AdminRequest{}, false},
	} {
		r := DecodeRequest(c.msg)
		if r.Op != Admin || r.Malformed {
			t.Errorf("%q is no admin request: %v", c.msg, r)
		}
		if got, ok := DecodeAdmin(r.Admin); fmt.Sprint(got) != fmt.Sprint(c.want) || ok != c.ok {
			t.Errorf("%q: %v, %v; want %v, %v", c.msg, got, ok, c.want, c.ok)
		}
	}
	for _, name := range []string{"admin", "Admin_pause", " admin_pause", "xadmin_pause"} {
		if r := DecodeRequest(wire("request=" + name)); r.Op != Unknown {
			t.Errorf("%q is %v", name, r.Op)
		}
	}
}

func TestAdminReplies(t *testing.T) {
	reply := AppendEnd(AppendNumber(AppendText(AppendOK(nil), "a", "b"), "c", -5))
	if want := "status\x000\x00a\x00b\x00c\x00-5\x00\x00"; string(reply) != want {
		t.Errorf("%q, want %q", reply, want)
	}
	status, rest, ok := DecodeStatus(AppendRefusal(nil, Denied, "because"))
	if status != Denied || string(rest) != "reason\x00because\x00\x00" || !ok {
		t.Errorf("%v %q %v", status, rest, ok)
	}
}

// The names are stable, and fit for others' systems: no two are the same.
func TestStatisticsTable(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(_[a-z0-9]+)*$`)
	var all []string
	for _, s := range Statistics {
		if !name.MatchString(s.Name) || s.Help == "" || slices.Contains(all, s.Name) {
			t.Errorf("%+v", s)
		}
		all = append(all, s.Name)
	}
	if last := all[len(all)-1]; last != "request_us_sum" || !slices.Contains(all, "found_age_ms_le_inf") {
		t.Errorf("the histograms are not there: %q", all)
	}
}

// FuzzDecodeAdmin decodes any message without looking behind it.
func FuzzDecodeAdmin(f *testing.F) {
	f.Add([]byte("pause"), []byte(""), []byte(""))
	f.Add([]byte("flush"), []byte("what"), []byte("all\x00value\x00"))
	f.Fuzz(func(t *testing.T, name, argument, rest []byte) {
		msg := fmt.Appendf(nil, "request\x00admin_%s\x00%s\x00%s\x00\x00", name, argument, rest)
		var framer Framer
		n, done := framer.Next(msg)
		if !done {
			return
		}
		r := DecodeRequest(msg[:n:n])
		if r.Op != Admin {
			return
		}
		a, ok := DecodeAdmin(r.Admin)
		again, _ := DecodeAdmin(DecodeRequest(append(slices.Clone(msg[:n]), "more\x00"...)[:n]).Admin)
		if fmt.Sprint(a) != fmt.Sprint(again) || ok && a.Op == AdminUnknown {
			t.Fatalf("%q: %v, %v, %v", msg, a, ok, again)
		}
	})
}
