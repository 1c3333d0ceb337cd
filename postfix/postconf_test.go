package postfix

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ask runs postconf(1) on a main.cf.
func ask(t *testing.T, mainCf string, overrides ...string) (answer, *postconf, error) {
	t.Helper()
	needPostconf(t)
	dir := t.TempDir()
	writeMainCf(t, dir, "compatibility_level = 3.6\nmyhostname = mail.example.com\n"+mainCf)
	p := &postconf{program: "scache", service: "conncache", overrides: overrides, limit: postconfLimit, config: dir}
	a, err := p.ask(paramNames...)
	return a, p, err
}

func mustAsk(t *testing.T, mainCf string, overrides ...string) rawParams {
	t.Helper()
	a, _, err := ask(t, mainCf, overrides...)
	if err != nil {
		t.Fatal(err)
	}
	return a.values
}

func TestPostconfDefaults(t *testing.T) {
	a, asked, err := ask(t, "")
	if err != nil {
		t.Fatal(err)
	}
	raw := a.values
	p, err := raw.common()
	if err == nil {
		err = raw.own(p)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "TTL limit", p.TTLLimit, 2*time.Second)
	wantEqual(t, "statistics", p.StatusUpdateTime, 600*time.Second)
	wantEqual(t, "max_idle", p.MaxIdle, 100*time.Second)
	wantEqual(t, "ipc_timeout", p.IPCTimeout, time.Hour)
	wantEqual(t, "daemon_timeout", p.DaemonTimeout, 5*time.Hour)
	wantEqual(t, "syslog_name", p.SyslogName, "postfix")
	wantEqual(t, "facility", p.SyslogFacility, "mail")
	wantEqual(t, "maillog_file", p.MaillogFile, "")
	wantEqual(t, "postlog service", p.PostlogService, "postlog")
	wantEqual(t, "host", p.MyHostname, "mail.example.com")
	wantEqual(t, "UTF-8", raw.utf8(), true)
	wantEqual(t, "configuration", p.ConfigDirectory, asked.config)
}

func TestPostconfMainCf(t *testing.T) {
	raw := mustAsk(t, `
base = 3
connection_cache_ttl_limit = 1s
connection_cache_ttl_limit =
    # a comment

    ${base}0
max_idle = $(base)m
ipc_timeout = $base
	h
multi_instance_name = postfix-out
syslog_facility = local3
daemon_timeout = ${nonesuch?{1}:{9d}}
`)
	wantEqual(t, "ttl", raw["connection_cache_ttl_limit"], "30")
	wantEqual(t, "max_idle", raw["max_idle"], "3m")
	wantEqual(t, "ipc_timeout", raw["ipc_timeout"], "3 h") // which is an error later
	wantEqual(t, "syslog_name", raw["syslog_name"], "postfix-out")
	wantEqual(t, "daemon_timeout", raw["daemon_timeout"], "9d")
	wantEqual(t, "facility", raw["syslog_facility"], "local3")
}

// own asks for the parameters, and converts those of the connection cache.
func own(t *testing.T, mainCf string, overrides ...string) (Params, error) {
	t.Helper()
	var p Params
	err := mustAsk(t, mainCf, overrides...).own(&p)
	p.TTLLimit, p.StatusUpdateTime = 0, 0
	return p, err
}

// What Postfix does not have is read by its rules nevertheless.
func TestPostconfNew(t *testing.T) {
	defaults := Params{
		BindingLimit: 1 << 20, DestinationLimit: 4096, TextLimit: 256 << 20, ClientMemoryLimit: 64 << 20,
	}
	const mainCf = `
base = 3
unused_limit = 1
connection_cache_size_limit = 1
connection_cache_size_limit =
    # a comment
    ${base}0
connection_cache_endpoint_limit = $connection_cache_size_limit
connection_cache_binding_limit = ${nonesuch?{1}:{$(base)1}}
connection_cache_destination_limit = 32
connection_cache_text_limit = $connection_cache_ttl_limit
connection_cache_ttl_limit = 33
connection_cache_client_memory_limit = $scache_limit
scache_limit = 34
connection_cache_reuse_order = lifo
connection_cache_close_handshake = Quit
`
	set := Params{
		SizeLimit: 30, EndpointLimit: 30, BindingLimit: 31, DestinationLimit: 32, TextLimit: 33,
		ClientMemoryLimit: 34, LIFO: true, Quit: true,
	}
	overridden := set
	overridden.SizeLimit, overridden.EndpointLimit, overridden.DestinationLimit, overridden.LIFO = 7, 7, 3, false
	some := defaults
	some.SizeLimit, some.Quit = 9, true
	for _, c := range []struct {
		name      string
		mainCf    string
		overrides []string
		want      Params
	}{
		{"defaults", "", nil, defaults},
		{"main.cf", mainCf, nil, set},
		{"both", mainCf, []string{
			"connection_cache_size_limit=6", "connection_cache_size_limit=7",
			"connection_cache_destination_limit=$base", "connection_cache_reuse_order=FIFO",
		}, overridden},
		{"-o", "", []string{"connection_cache_size_limit=9", "connection_cache_close_handshake=quit"}, some},
		{"our own name", "scache_parameters = x\nconnection_cache_size_limit = 9", []string{
			"scache_parameters=y", "connection_cache_close_handshake=${service_name?{quit}}",
		}, some},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := own(t, c.mainCf, c.overrides...)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "parameters", got, c.want)
		})
	}
}

// A value is what it is, however odd, and takes no other with it.
func TestPostconfNewOddValues(t *testing.T) {
	const odd = "a, b=c | d # e } ${f $$g"
	raw := mustAsk(t, "connection_cache_size_limit = 1\nconnection_cache_endpoint_limit =\n",
		"connection_cache_reuse_order="+strings.ReplaceAll(odd, "$", "$$"), "connection_cache_text_limit=")
	wantEqual(t, "odd", raw["connection_cache_reuse_order"], odd)
	wantEqual(t, "empty in main.cf", raw["connection_cache_endpoint_limit"], "")
	wantEqual(t, "empty by -o", raw["connection_cache_text_limit"], "")
	wantEqual(t, "as usual", raw["connection_cache_size_limit"], "1")
	wantEqual(t, "not set", raw["connection_cache_close_handshake"], "none")
}

func TestPostconfOverrides(t *testing.T) {
	raw := mustAsk(t, "max_idle = 5\nx = $max_idle\ndaemon_timeout = $x",
		"max_idle=6", "max_idle=7", "ipc_timeout=", "smtputf8_enable=no",
		"syslog_name=$process_name/${service_name}/$(service_name)/${service_name?{y}:{n}}/$$service_name/[$process_id]")
	wantEqual(t, "last one counts", raw["max_idle"], "7")
	wantEqual(t, "seen by main.cf", raw["daemon_timeout"], "7")
	wantEqual(t, "empty", raw["ipc_timeout"], "")
	wantEqual(t, "UTF-8", raw.utf8(), false)
	// Postfix sets process_id only after syslog_name is expanded.
	wantEqual(t, "names", raw["syslog_name"], "scache/conncache/conncache/y/$service_name/[]")
}

func TestPostconfDebugger(t *testing.T) {
	pid := "[" + strings.TrimSpace(pidText()) + "]"
	_, p, err := ask(t, "debugger_command = gdb $process_name [$process_id] $service_name\n  & sleep 5")
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.askDebugger()
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "from main.cf", got, "gdb scache "+pid+" conncache & sleep 5")
	p.overrides = []string{"debugger_command=[$process_id]"}
	got, err = p.askDebugger()
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "from -o", got, pid)
}

func TestPostconfErrors(t *testing.T) {
	needPostconf(t)
	t.Parallel()
	for _, c := range []struct{ name, mainCf, want, reason string }{
		{"no value", "max_idle\n", "DIR/main.cf, line 3: missing '=' after attribute name: \"max_idle\"", ""},
		{"no end", "max_idle = ${x\n", "macro processing error", `truncated macro reference: "${x"`},
		{"circle", "max_idle = $max_idle\n", "macro processing error", `unreasonable macro call nesting: "max_idle"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, p, err := ask(t, c.mainCf)
			want := strings.Replace(c.want, "DIR", p.config, 1)
			if err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
			wantEqual(t, "the reason", strings.Join(a.warnings, "|"), c.reason)
		})
	}
	_, err := (&postconf{program: "scache", limit: postconfLimit, config: "/nonexistent"}).ask("max_idle")
	if err == nil || err.Error() != "open /nonexistent/main.cf: No such file or directory" {
		t.Errorf("no main.cf: %v", err)
	}
}

// What a daemon would say of main.cf itself is passed on, and nothing else.
func TestPostconfWarnings(t *testing.T) {
	a, p, err := ask(t, "unused = 1\nmax_idle = 1\nmax_idle = 2\nconnection_cache_size_limit = 3\n")
	if err != nil {
		t.Fatal(err)
	}
	wantSlice(t, "warnings", a.warnings, []string{
		p.config + "/main.cf, line 5: overriding earlier entry: max_idle=1",
	})
}

// A daemon does not read master.cf, nor does it end at a mistake there; one in main.cf it sees.
func TestPostconfMasterCf(t *testing.T) {
	needPostconf(t)
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Run("mistakes", func(t *testing.T) { // which ends when all have been made
		for mistake, said := range map[string]string{
			"submission inet n - n -":       "file DIR/master.cf: line 1: bad field count",
			"scache unixx - - y - 1 scache": `invalid type field "unixx" in "scache unixx - - y - 1 scache"`,
		} {
			t.Run(mistake, func(t *testing.T) {
				t.Parallel()
				masterCfMistake(t, mistake, said)
			})
		}
	})
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func masterCfMistake(t *testing.T, mistake, said string) {
	dir := t.TempDir()
	p := postconf{program: "scache", limit: postconfLimit, config: dir}
	const main = "compatibility_level = 3.6\nmyhostname = mail.example.com\n"
	if err := os.WriteFile(filepath.Join(dir, "master.cf"), []byte(mistake+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	writeMainCf(t, dir, main+"max_idle = 3\nmax_idle = 4\nsyslog_name = $config_directory\n")
	a, err := p.ask(paramNames...)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "max_idle", a.values["max_idle"], "4")
	wantEqual(t, "configuration", a.values["config_directory"], dir)
	wantEqual(t, "name", a.values["syslog_name"], dir)
	wantSlice(t, "warnings", a.warnings, []string{
		dir + "/main.cf, line 4: overriding earlier entry: max_idle=3", strings.Replace(said, "DIR", dir, 1),
	})

	writeMainCf(t, dir, main+"max_idle\n")
	want := dir + "/main.cf, line 3: missing '=' after attribute name: \"max_idle\""
	if _, err := p.ask(paramNames...); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// Nor does it look at other programs' parameters, or at the files of maps.
func TestPostconfElsewhere(t *testing.T) {
	needPostconf(t)
	t.Parallel()
	for _, c := range []struct{ name, mainCf, want string }{
		{"a macro", "smtpd_banner = ${x\n", `truncated macro reference: "${x"; macro processing error`},
		{"a map", "virtual_alias_maps = hash:a,\n  ldap:DIR/map.cf\n", `DIR/map.cf, line 1: missing '=' after attribute name: "nonsense"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "map.cf"), []byte("nonsense\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			writeMainCf(t, dir, "compatibility_level = 0\nmyhostname = mail.example.com\n"+strings.ReplaceAll(c.mainCf, "DIR", dir)+
				"multi_instance_name = postfix-$one\none = 1\n# no end\n\nmax_idle\n# of it\n =\n\t4\nmax_idle = ${ two }s\ntwo = 2\n"+
				"connection_cache_reuse_order = lifo\nipc_timeout = 17s\n")
			p := postconf{program: "scache", limit: postconfLimit, config: dir, overrides: []string{"connection_cache_ttl_limit=$ipc_timeout"}}
			a, err := p.ask(paramNames...)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{
				"max_idle": "2s", "syslog_name": "postfix-1", "smtputf8_enable": "no", "config_directory": dir,
				"connection_cache_reuse_order": "lifo", "connection_cache_ttl_limit": "17s", "myhostname": "mail.example.com",
			} {
				wantEqual(t, name, a.values[name], want)
			}
			overridden := fmt.Sprintf("%s/main.cf, line %d: overriding earlier entry: max_idle=4", dir, 11+strings.Count(c.mainCf, "\n"))
			wantSlice(t, "warnings", a.warnings, []string{overridden, strings.ReplaceAll(c.want, "DIR", dir)})
			wantEqual(t, "mistake", a.mistake, nil)

			p.overrides = []string{"connection_cache_close_handshake=${y"}
			if a, err = p.ask(paramNames...); err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "max_idle", a.values["max_idle"], "2s")
			if a.mistake == nil {
				t.Error("the mistake in a new parameter is lost")
			}
		})
	}
}

// Commands that are not postconf(1), or one that hangs, give an error in time.
func TestPostconfMisbehaves(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{"echo nonsense", `CMD: cannot make sense of "nonsense\n"`},
		{"echo max_use = 3", "CMD: no value for max_idle"},
		{"exit 3", "CMD: exit status 3"},
		{"echo oops >&2; echo 'scache: fatal: no luck' >&2; exit 1", "no luck"},
		{"sleep 3 & wait", "CMD: no answer within 200ms"},
	} {
		path := t.TempDir() + "/postconf"
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		limit := 10 * time.Second
		if strings.HasPrefix(c.script, "sleep") {
			limit = 200 * time.Millisecond
		}
		_, err := (&postconf{path: path, program: "scache", limit: limit}).ask("max_idle")
		want := strings.Replace(c.want, "CMD", path, 1)
		if err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", c.script, err, want)
		}
	}
	_, err := (&postconf{path: "/nonexistent/postconf", program: "scache", limit: time.Second}).ask("max_idle")
	if err == nil || err.Error() != "exec /nonexistent/postconf: No such file or directory" {
		t.Errorf("no such command: %v", err)
	}
}

func TestParamErrors(t *testing.T) {
	good := mustAsk(t, "")
	for _, c := range []struct{ name, value, want string }{
		{"max_idle", "later", "parameter max_idle: bad time value or unit: later"},
		{"max_idle", "", "parameter max_idle: bad time value or unit: "},
		{"ipc_timeout", "0", "invalid ipc_timeout: 0 (min 1)"},
		{"daemon_timeout", "0h", "invalid daemon_timeout: 0 (min 1)"},
		{"connection_cache_ttl_limit", "later", "parameter connection_cache_ttl_limit: bad time value or unit: later"},
		{"connection_cache_ttl_limit", "0", "invalid connection_cache_ttl_limit: 0 (min 1)"},
		{"connection_cache_status_update_time", "-1", "parameter connection_cache_status_update_time: bad time value or unit: -1"},
		{"connection_cache_size_limit", "", "bad numerical configuration: connection_cache_size_limit = "},
		{"connection_cache_size_limit", "-1", "invalid connection_cache_size_limit parameter value -1 < 0"},
		{"connection_cache_endpoint_limit", "1k", "bad numerical configuration: connection_cache_endpoint_limit = 1k"},
		{"connection_cache_endpoint_limit", "-1", "invalid connection_cache_endpoint_limit parameter value -1 < 0"},
		{"connection_cache_binding_limit", "0", "invalid connection_cache_binding_limit parameter value 0 < 1"},
		{"connection_cache_destination_limit", "0", "invalid connection_cache_destination_limit parameter value 0 < 1"},
		{"connection_cache_text_limit", "0", "invalid connection_cache_text_limit parameter value 0 < 1"},
		{"connection_cache_text_limit", "2147483648", "bad numerical configuration: connection_cache_text_limit = 2147483648"},
		{"connection_cache_client_memory_limit", "0", "invalid connection_cache_client_memory_limit parameter value 0 < 1"},
		{"connection_cache_reuse_order", "random", "file /c/main.cf: parameter connection_cache_reuse_order: bad value: random (want fifo or lifo)"},
		{"connection_cache_close_handshake", "", "file /c/main.cf: parameter connection_cache_close_handshake: bad value:  (want none or quit)"},
		{"syslog_name", "", "bad string length 0 < 1: syslog_name = "},
		{"syslog_facility", "", "bad string length 0 < 1: syslog_facility = "},
		{"syslog_facility", "Mail", "file /c/main.cf: parameter syslog_facility: unrecognized value: Mail"},
	} {
		raw := rawParams{}
		for name, value := range good {
			raw[name] = value
		}
		raw["config_directory"], raw[c.name] = "/c", c.value
		if err := convert(raw); err == nil || err.Error() != c.want {
			t.Errorf("%s = %s: error %v, want %s", c.name, c.value, err, c.want)
		}
	}
}

// A mistake takes the others that are new with it, whichever were converted before.
func TestMistakeLeavesDefaults(t *testing.T) {
	raw := maps.Clone(newDefaults)
	raw["connection_cache_ttl_limit"], raw["connection_cache_status_update_time"] = "2", "600"
	var want, got Params
	err := raw.own(&want)
	raw["connection_cache_size_limit"], raw["connection_cache_reuse_order"], raw["connection_cache_close_handshake"] = "9", "lifo", "bad"
	if err = cmp.Or(err, raw.own(&got)); err != nil || got.Mistake == nil {
		t.Fatalf("%v, mistake %v", err, got.Mistake)
	}
	got.Mistake = nil
	wantEqual(t, "parameters", got, want)
}

// What Postfix's own has too is complained of first.
func TestParamErrorOrder(t *testing.T) {
	order := []string{
		"connection_cache_status_update_time", "connection_cache_size_limit", "connection_cache_client_memory_limit",
		"connection_cache_reuse_order", "connection_cache_close_handshake",
	}
	raw := mustAsk(t, "")
	for _, name := range slices.Backward(order) {
		raw[name] = "bad"
		if err := convert(raw); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want one about %s", err, name)
		}
	}
}

func convert(raw rawParams) error {
	if _, err := raw.facility(); err != nil {
		return err
	}
	p, err := raw.common()
	if err != nil {
		return err
	}
	err = raw.own(p)
	return cmp.Or(err, p.Mistake)
}
