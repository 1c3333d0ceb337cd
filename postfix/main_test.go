package postfix

import (
	"bytes"
	"encoding/json"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is its own daemon: started with this variable it does what the
// value says instead of running tests.
const roleVariable = "POSTFIX_TEST_ROLE"

var roles = map[string]func(){
	"daemon":   daemonRole,
	"fatal":    func() { NewStderrLog(DatedText).Fatalf("out of %s", "luck") },
	"panic":    func() { NewStderrLog(DatedText).die(panicStatus, sevPanic, "should not happen") },
	"recover":  recoverRole,
	"watchdog": watchdogRole,
	"stderr":   stderrRole,
	"syslog":   syslogRole,
	"full":     fullRole,
}

func TestMain(m *testing.M) {
	if role := roles[os.Getenv(roleVariable)]; role != nil {
		role()
		os.Exit(0)
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "64") // most tests wait for a process that pauses
	os.Exit(m.Run())
}

// facts is what the daemon role found after Start.
type facts struct {
	UID, EUID, GID, PID int
	Groups              []int
	Cwd                 string
	Root                []string
	Listeners           []int
	Stdin               bool
	HasStatus           bool
	Service             string
	Verbose             int
	Params              Params
	Mistake             string
	CloseOnExec         []int
	SoftLimit           uint64
	Zone                string
}

func daemonRole() {
	d := Start(os.Args, nil)
	f := facts{
		UID: os.Getuid(), EUID: os.Geteuid(), GID: os.Getgid(), PID: os.Getpid(),
		Listeners: d.Listeners, Stdin: d.Stdin, HasStatus: d.Status != nil,
		Service: d.service, Verbose: d.Verbose, Params: d.Params,
	}
	if d.Params.Mistake != nil {
		f.Mistake = d.Params.Mistake.Error()
	}
	f.Groups, _ = os.Getgroups()
	f.Cwd, _ = os.Getwd()
	if entries, err := os.ReadDir("/"); err == nil {
		for _, e := range entries {
			f.Root = append(f.Root, e.Name())
		}
	}
	for fd := 3; fd < 10; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC != 0 {
			f.CloseOnExec = append(f.CloseOnExec, fd)
		}
	}
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	f.SoftLimit = limit.Cur
	f.Zone, _ = time.Date(2024, 1, 1, 0, 0, 0, 0, time.Local).Zone()
	d.Log.Infof("serving")
	d.Status.Announce()
	_ = json.NewEncoder(os.Stdout).Encode(f)
}

func needPostconf(t *testing.T) {
	t.Helper()
	if _, err := new(postconf).find(); err != nil {
		t.Skip("SKIPPED: ", err)
	}
}

// writeMainCf writes main.cf, old enough for Postfix to read it without waiting.
func writeMainCf(t *testing.T, dir, text string) {
	t.Helper()
	name := filepath.Join(dir, "main.cf")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
}

func listenDatagram(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// received returns the datagrams that wait in c.
func received(t *testing.T, c *net.UnixConn) []string {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	buf := make([]byte, 8192)
	_ = raw.Read(func(fd uintptr) bool {
		for {
			n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			if err != nil {
				return true
			}
			lines = append(lines, string(buf[:n]))
		}
	})
	return lines
}

func socketpair(t *testing.T) [2]int {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// role runs the test binary in another role, and returns its standard error and
// exit status.
func role(t *testing.T, name string) (stderr string, status int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"scache"}
	cmd.Env = append(os.Environ(), roleVariable+"="+name)
	var out bytes.Buffer
	cmd.Stderr = &out
	_ = cmd.Run()
	return withoutCoverage(out.String()), cmd.ProcessState.ExitCode()
}

// coverage is what a program built for `go test -cover` says at its end.
var coverage = regexp.MustCompile(`(?m)^.*(?:GOCOVERDIR|coverage).*\n`)

func withoutCoverage(stderr string) string { return coverage.ReplaceAllString(stderr, "") }

func wantEqual[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func wantSlice[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}
