package postfix

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// syslogRole has a /dev of its own, and is syslogd(8) and its client in one. What
// arrives goes to standard error.
func syslogRole() {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	// Nothing mounted here may be seen elsewhere. Where the root directory is no
	// mount point, as in a chroot, /dev is one.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		must(unix.Mount("", "/dev", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	}
	must(unix.Mount("none", "/dev", "tmpfs", 0, ""))
	must(os.MkdirAll("/dev/jail/dev", 0o755))
	listen := func(path string) *net.UnixConn {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		must(err)
		return c
	}
	arrived := func(c *net.UnixConn) {
		buf := make([]byte, 1000)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(buf)
		must(err)
		fmt.Fprintf(os.Stderr, "%s\n", buf[:n])
	}
	outside, inside := listen("/dev/log"), listen("/dev/jail/dev/log")
	m, err := maillogOfParams("scache", &Params{SyslogName: "pf", SyslogFacility: "local3"})
	must(err)
	l := newLog(m.open())
	must(unix.Chroot("/dev/jail"))
	l.Warningf("outside")
	arrived(outside)
	outside.Close()
	l.Errorf("inside")
	arrived(inside)
}

// The log is connected before the jail, and found again inside if syslogd(8)
// listens there too.
func TestSyslog(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: this test needs root")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"=syslog")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := regexp.MustCompile(`^<156>\w{3} [ \d]\d [\d:]{8} pf/scache\[\d+\]: warning: outside
<155>\w{3} [ \d]\d [\d:]{8} pf/scache\[\d+\]: error: inside
$`)
	if !want.MatchString(withoutCoverage(string(out))) {
		t.Errorf("got %q", out)
	}
}

func TestMaillogOfEnvironment(t *testing.T) {
	for _, name := range []string{"MAIL_LOGTAG", "POSTLOG_SERVICE", "POSTLOG_HOSTNAME"} {
		t.Setenv(name, "") // to be restored
		os.Unsetenv(name)
	}
	m := maillogOfEnvironment("scache")
	wantEqual(t, "nothing set", m, maillog{"scache", "postfix", facilities["mail"], "", "amnesiac"})
	t.Setenv("MAIL_LOGTAG", "out")
	t.Setenv("POSTLOG_SERVICE", "/q/public/postlog")
	t.Setenv("POSTLOG_HOSTNAME", "a.b.c")
	m = maillogOfEnvironment("scache")
	wantEqual(t, "all set", m, maillog{"scache", "out", facilities["mail"], "/q/public/postlog", "a.b.c"})
	wantEqual(t, "tag", m.tag(), "out/scache")
}

// Once the parameters are known the environment does not count any more.
func TestMaillogOfParams(t *testing.T) {
	t.Setenv("MAIL_LOGTAG", "out")
	t.Setenv("POSTLOG_SERVICE", "/q/public/postlog")
	p := &Params{
		SyslogName: "in", SyslogFacility: "news", QueueDirectory: "/p", MyHostname: "x.y",
		PostlogService: "plog", MaillogFilePrefixes: "/var, /dev/stdout",
	}
	for file, want := range map[string]string{"": "", "/var/log/x": "/p/public/plog", "/dev/stdout": "/p/public/plog"} {
		p.MaillogFile = file
		m, err := maillogOfParams("scache", p)
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "log for "+file, m, maillog{"scache", "in", facilities["news"], want, "x.y"})
	}
	p.MaillogFile = "/home/x"
	if _, err := maillogOfParams("scache", p); err == nil {
		t.Error("accepted /home/x")
	}
}

const logPathVariable = "POSTFIX_TEST_LOG"

// fullRole dies while its log is full, and asks for room only once the pause is
// over.
func fullRole() {
	l := newLog(maillog{"scache", "postfix", 0, os.Getenv(logPathVariable), "mail"}.open())
	for l.Dropped() == 0 {
		l.Infof("chatter")
	}
	attempts := 0
	l.now = func() time.Time { // asked by each attempt, before it is made
		if attempts++; attempts == 2 {
			fmt.Fprintln(os.Stderr, "full")
			_, _ = io.Copy(io.Discard, os.Stdin)
		}
		return time.Now()
	}
	l.Fatalf("the end")
}

// The pause before the end is used to get rid of the reason.
func TestFatalSecondChance(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/log"
	c := listenDatagram(t, path)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"=full", logPathVariable+"="+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(stderr).ReadString('\n'); line != "full\n" {
		t.Errorf("got %q", line)
	}
	received(t, c)
	stdin.Close()
	_ = cmd.Wait()
	got := strings.Join(texts(received(t, c)), "|")
	wantEqual(t, "lines", got, "warning: 2 log lines were lost|fatal: the end")
}
