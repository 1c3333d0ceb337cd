package postfix

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pidText() string { return strconv.Itoa(os.Getpid()) }

// Debian's own line of master.cf: jailed, as mail_owner.
func TestStartJailed(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	r := in.start("-l", "-t", "unix", "-u", "-c")
	f := r.facts(t)
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "status", r.status, 0)
	wantEqual(t, "user", fmt.Sprint(f.UID, f.EUID), owner.Uid+" "+owner.Uid)
	wantEqual(t, "group", fmt.Sprint(f.GID), owner.Gid)
	if slices.Contains(f.Groups, 0) {
		t.Errorf("still in group 0: %v", f.Groups)
	}
	wantEqual(t, "working directory", f.Cwd, "/")
	wantSlice(t, "root directory", f.Root, []string{"private", "public"})
	wantSlice(t, "listeners", f.Listeners, []int{6})
	for fd := 3; fd <= 6; fd++ {
		if !slices.Contains(f.CloseOnExec, fd) {
			t.Errorf("descriptor %d is not close-on-exec", fd)
		}
	}
	wantEqual(t, "service", f.Service, "scache")
	wantSlice(t, "log", r.texts(), []string{"serving"})
	line := regexp.MustCompile(fmt.Sprintf(`^[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d mail postfix/scache\[%d\]: serving$`, f.PID))
	if !line.MatchString(r.log[0]) {
		t.Errorf("log line %q", r.log[0])
	}
	var want []byte
	for _, avail := range []uint32{0, 1} {
		want = binary.NativeEndian.AppendUint32(want, uint32(f.PID))
		want = binary.NativeEndian.AppendUint32(want, 0o17)
		want = binary.NativeEndian.AppendUint32(want, avail)
	}
	wantSlice(t, "status channel", r.master, want)
}

func TestStartUnprivilegedWithoutJail(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	f := in.start("-l", "-t", "unix", "-u").facts(t)
	wantEqual(t, "working directory", f.Cwd, in.queue)
	if f.UID == 0 {
		t.Error("still root")
	}
	f = in.start("-l", "-t", "unix").facts(t)
	wantEqual(t, "working directory", f.Cwd, in.queue)
	wantEqual(t, "user", f.UID, 0)
}

func TestStartSeveralSockets(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	in.sockets = 3
	f := in.start("-l", "-s", "3", "-tUNIX", "-n", "conncache").facts(t)
	wantSlice(t, "listeners", f.Listeners, []int{6, 7, 8})
	wantEqual(t, "service", f.Service, "conncache")
}

// One client on standard input needs neither master's descriptors nor -l.
func TestStartStdin(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	in.bare = true
	f := in.start("-S", "-v", "-v").facts(t)
	wantEqual(t, "stdin", f.Stdin, true)
	wantEqual(t, "status channel", f.HasStatus, false)
	wantEqual(t, "listeners", len(f.Listeners), 0)
	wantEqual(t, "verbose", f.Verbose, 2)
}

// The soft limit is raised to the hard one, and the time zone outlives the jail.
func TestStartLimitAndZone(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	in.rlimit = 256
	in.env = []string{"TZ=America/New_York"}
	f := in.start("-l", "-t", "unix", "-u", "-c").facts(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// Go itself raises it, to one less than it might.
	if f.SoftLimit < limit.Max-1 {
		t.Errorf("soft limit %d, hard limit %d", f.SoftLimit, limit.Max)
	}
	if _, err := os.Stat("/usr/share/zoneinfo/America/New_York"); err != nil {
		t.Skip("SKIPPED: no time zones here")
	}
	wantEqual(t, "zone", f.Zone, "EST")
}

// TZ may be a rule in place of a name.
func TestStartZoneByRule(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	for tz, want := range map[string]string{"<+03>-3": "+03", "CET-1CEST,M3.5.0,M10.5.0/3": "CET", "MST7": "MST", "nonsense": "UTC"} {
		in.env = []string{"TZ=" + tz}
		wantEqual(t, tz, in.start("-l", "-t", "unix", "-u", "-c").facts(t).Zone, want)
	}
	_, offset := aMoment.In(posixZone("CET-1CEST,M3.5.0,M10.5.0/3")).Zone()
	_, summer := aMoment.AddDate(0, 6, 0).In(posixZone("CET-1CEST,M3.5.0,M10.5.0/3")).Zone()
	wantEqual(t, "winter and summer", min(offset, summer), 3600)
	wantEqual(t, "summer and winter", max(offset, summer), 7200)
}

// mail_owner is whoever getent(1) knows, and has any number.
func TestStartForeignOwner(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	in.passwd = "root:x:0:0:root:/root:/bin/sh\nmailv:x:4294967294:65533::/\n" // no shell: not for package os/user
	f := in.start("-l", "-t", "unix", "-u", "-c", "-o", "mail_owner=mailv").facts(t)
	wantEqual(t, "user", f.UID, 4294967294)
	wantEqual(t, "group", f.GID, 65533)
	refuses(t, in, "-l -t unix -u -c -o mail_owner=4294967294", "", "file CONF/main.cf: parameter mail_owner: unknown user name value: 4294967294")
}

func TestStartVerbose(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	in.env = []string{"MAIL_VERBOSE="}
	r := in.start("-l", "-t", "unix", "-u", "-c", "-v", "-V", "-o", "syslog_name=pf-$service_name")
	wantSlice(t, "log", r.texts(), []string{
		"daemon started", "process generation: 17 (17)", "chroot " + in.queue + " user postfix", "serving",
	})
	for i, tag := range []string{"postfix", "pf-scache", "pf-scache", "pf-scache"} {
		if !strings.Contains(r.log[i], " "+tag+"/scache[") {
			t.Errorf("tag of %q, want %s", r.log[i], tag)
		}
	}
	wantEqual(t, "standard error", strings.Count(r.stderr, "\n"), 3)
	if !strings.HasSuffix(r.stderr, "pf-scache/scache: serving\n") {
		t.Errorf("standard error %q", r.stderr)
	}
}

func TestStartDebugger(t *testing.T) {
	t.Parallel()
	in := newInstance(t, "debugger_command = echo $process_name $process_id >$queue_directory/ran; exit 3")
	in.env = []string{"MAIL_DEBUG=1"}
	r := in.start("-l", "-t", "unix")
	wantEqual(t, "status", r.status, 0)
	ran, err := os.ReadFile(in.queue + "/ran")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("scache %d", r.facts(t).PID)
	wantEqual(t, "command", string(ran), want+"\n")
	wantSlice(t, "log", r.texts(), []string{"running: echo " + want + " >" + in.queue + "/ran; exit 3", "serving"})
}

func TestStartWarningsOfMainCf(t *testing.T) {
	t.Parallel()
	in := newInstance(t, "max_idle = 3", "max_idle = 4")
	r := in.start("-l", "-t", "unix")
	wantSlice(t, "log", r.texts(), []string{
		"warning: " + in.config + "/main.cf, line 7: overriding earlier entry: max_idle=3", "serving",
	})
	wantEqual(t, "max_idle", r.facts(t).Params.MaxIdle, 4*time.Second)
}

// Parameters that Postfix does not have, and no word in the log about them.
func TestStartNewParams(t *testing.T) {
	t.Parallel()
	in := newInstance(t, "connection_cache_size_limit = 5", "connection_cache_endpoint_limit = 2")
	r := in.start("-l", "-t", "unix", "-u", "-c",
		"-o", "connection_cache_endpoint_limit=3", "-o", "connection_cache_close_handshake=quit")
	wantSlice(t, "log", r.texts(), []string{"serving"})
	p := r.facts(t).Params
	wantEqual(t, "from main.cf", p.SizeLimit, 5)
	wantEqual(t, "from -o", p.EndpointLimit, 3)
	wantEqual(t, "from -o", p.Quit, true)
	wantEqual(t, "default", p.DestinationLimit, 4096)
}

// Without the descriptors of master(8) nothing else is taken for them.
func TestStartWithoutMaster(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	in.bare = true
	r := in.start("-l", "-t", "unix")
	wantEqual(t, "status", r.status, 1)
	// The number is either free, or Go's runtime has its epoll instance there.
	reason := regexp.MustCompile("Bad file descriptor|Socket operation on non-socket")
	texts := func(r run) string { return reason.ReplaceAllString(strings.Join(r.texts(), "\n"), "REASON") }
	wantEqual(t, "log", texts(r), "fatal: status channel, descriptor 5: REASON")
	in.bare = false
	r = in.start("-l", "-t", "unix", "-s", "2")
	wantEqual(t, "log", texts(r), "fatal: listening socket, descriptor 7: REASON")
}

// startErrors are set-ups that both we and Postfix's own scache(8) refuse, with the
// same words.
var startErrors = []struct {
	name   string
	args   string
	mainCf string
	env    string
	want   string
}{
	{"option", "-l -q", "", "", "invalid option: q"},
	{"no value", "-l -t", "", "", "invalid option: t"},
	{"bad -o", "-l -t unix -o x", "", "", `invalid "-o x" option value: missing '=' after attribute name`},
	{"sockets", "-l -t unix -s 0", "", "", "invalid socket_count: 0"},
	{"limit", "-t unix", "", "", "service scache requires a process limit of 1"},
	{"limit of a name", "-n cc -t unix -z", "", "", "service cc requires a process limit of 1"},
	{"no transport", "-l", "", "", "no transport type specified"},
	{"transport", "-l -t x25", "", "", "unsupported transport type: x25"},
	{"generation", "-l -t unix", "", "GENERATION=x1", "bad generation: x1"},
	{"ttl", "-l -t unix", "connection_cache_ttl_limit = later", "", "parameter connection_cache_ttl_limit: bad time value or unit: later"},
	{"ttl of -o", "-l -t unix -o connection_cache_ttl_limit=0", "", "", "invalid connection_cache_ttl_limit: 0 (min 1)"},
	{"statistics", "-l -t unix", "connection_cache_status_update_time = 0", "", "invalid connection_cache_status_update_time: 0 (min 1)"},
	{"max_idle", "-l -t unix -i 0", "", "", "invalid max_idle: 0 (min 1)"},
	{"overflow", "-l -t unix", "ipc_timeout = 3550w", "", "parameter ipc_timeout: bad time value or unit: 3550w"},
	{"blank", "-l -t unix", "ipc_timeout = 3 h", "", "parameter ipc_timeout: bad time value or unit: 3 h"},
	{"facility", "-l -t unix", "syslog_facility = post", "", "file CONF/main.cf: parameter syslog_facility: unrecognized value: post"},
	{"log file", "-l -t unix", "maillog_file = /tmp/x", "", "maillog_file value '/tmp/x' does not match any prefix in maillog_file_prefixes"},
	{"empty name", "-l -t unix", "syslog_name =", "", "bad string length 0 < 1: syslog_name = "},
	{"owner", "-l -t unix -u", "mail_owner = nobodyhere", "", "file CONF/main.cf: parameter mail_owner: unknown user name value: nobodyhere"},
	{"privileged owner", "-l -t unix -u", "mail_owner = root", "", "file CONF/main.cf: parameter mail_owner: user root has privileged user ID"},
	{"no debugger", "-l -t unix -D", "", "", "no debugger_command variable set up"},
	{"no main.cf", "-l -t unix", "", "MAIL_CONFIG=/nonexistent", "open /nonexistent/main.cf: No such file or directory"},
	{"syntax", "-l -t unix", "oops", "", "CONF/main.cf, line 6: missing '=' after attribute name: \"oops\""},
	{"masked", "-l -t unix -o max_idle=\x01\u20ac", "", "", "parameter max_idle: bad time value or unit: ?\u20ac"},
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	for _, c := range startErrors {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			refuses(t, newInstance(t, c.mainCf), c.args, c.env, c.want)
		})
	}
}

// Postfix's own scache says the same, word for word.
func TestStartErrorsStock(t *testing.T) {
	t.Parallel()
	const stock = "/usr/lib/postfix/sbin/scache"
	if _, err := os.Stat(stock); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	for _, c := range startErrors {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := newInstance(t, c.mainCf)
			in.command = stock
			refuses(t, in, c.args, c.env, c.want)
		})
	}
}

func refuses(t *testing.T, in *instance, args, env, want string) {
	t.Helper()
	if env != "" {
		in.env = []string{env}
	}
	r := in.start(strings.Fields(args)...)
	wantEqual(t, "exit status", r.status, 1)
	if len(r.log) == 0 {
		t.Fatal("nothing in the log")
	}
	got := strings.ReplaceAll(r.texts()[len(r.log)-1], in.config, "CONF")
	wantEqual(t, "last line", got, "fatal: "+want)
	if r.took < fatalPause {
		t.Errorf("ended after %v", r.took)
	}
	wantEqual(t, "reports to master", len(r.master), 0)
}

// Where we refuse, and Postfix does so only at the first request, or not at all.
func TestStartOwnErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, args, mainCf, want string }{
		{"surplus", "-l -t unix surplus", "", "unexpected command-line argument: surplus"},
		{"pass", "-l -t pass", "", "unsupported transport type: pass"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			refuses(t, newInstance(t, c.mainCf), c.args, "", c.want)
		})
	}
}

// What is wrong with a parameter that Postfix does not have keeps nothing from starting. All of these
// have their defaults then.
func TestStartMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, mainCf, want string }{
		{"", "connection_cache_text_limit = x", "bad numerical configuration: connection_cache_text_limit = x"},
		{"-o connection_cache_size_limit=-1", "", "invalid connection_cache_size_limit parameter value -1 < 0"},
		{"", "connection_cache_reuse_order = any", "file CONF/main.cf: parameter connection_cache_reuse_order: bad value: any (want fifo or lifo)"},
		{"", "connection_cache_policy_file = ${config_directory", `a parameter of the connection cache: truncated macro reference: "${config_directory"; macro processing error`},
	} {
		in := newInstance(t, c.mainCf+"\nconnection_cache_endpoint_limit = 7\n")
		f := in.start(strings.Fields("-l -t unix -u -c " + c.args)...).facts(t)
		wantEqual(t, "mistake", strings.ReplaceAll(f.Mistake, in.config, "CONF"), c.want)
		wantEqual(t, "text limit", f.Params.TextLimit, 268435456)
		wantEqual(t, "endpoint limit", f.Params.EndpointLimit, 0)
		wantEqual(t, "time to live", f.Params.TTLLimit, 2*time.Second)
	}
}

// The queue directory is entered after the log moved to the place that it names,
// so the line is looked for on standard error.
func TestStartNoQueueDirectory(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	r := in.start("-l", "-t", "unix", "-V", "-o", "queue_directory=/nonexistent")
	wantEqual(t, "status", r.status, 1)
	want := "postfix/scache: fatal: chdir(\"/nonexistent\"): No such file or directory\n"
	wantEqual(t, "standard error", r.stderr, want)
}

func TestStartNotRoot(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	in.asUser = true
	r := in.start("-l", "-t", "unix", "-u")
	wantSlice(t, "log", r.texts(), []string{"fatal: initgroups: Operation not permitted"})
	r = in.start("-l", "-t", "unix", "-c")
	wantSlice(t, "log", r.texts(), []string{"fatal: chroot(" + in.queue + "): Operation not permitted"})
}

func TestStartTerminal(t *testing.T) {
	t.Parallel()
	in := newInstance(t)
	in.terminal = true
	r := in.start("-l", "-t", "unix")
	wantEqual(t, "status", r.status, 1)
	wantSlice(t, "log", r.texts(), []string{"fatal: do not run this command by hand"})
	wantEqual(t, "standard error", r.stderr, "scache: fatal: do not run this command by hand\n")
	wantEqual(t, "with -d", in.start("-l", "-t", "unix", "-d").status, 0)
}
