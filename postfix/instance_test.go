package postfix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// run is the outcome of a daemon.
type run struct {
	status int
	stdout string
	stderr string
	log    []string // datagrams, in order
	master []byte   // what came over the status channel
	took   time.Duration
}

// texts are the log lines without what stands before the text.
func (r run) texts() []string {
	var texts []string
	for _, line := range r.log {
		_, text, _ := strings.Cut(line, "]: ")
		texts = append(texts, text)
	}
	return texts
}

func (r run) facts(t *testing.T) facts {
	t.Helper()
	var f facts
	if err := json.Unmarshal([]byte(r.stdout), &f); err != nil {
		t.Fatalf("no facts from the daemon: status %d, log %q, stderr %q", r.status, r.log, r.stderr)
	}
	return f
}

// instance is a private Postfix configuration, queue directory and log.
type instance struct {
	t       *testing.T
	config  string
	queue   string
	log     *net.UnixConn
	env     []string // beyond that of master(8)
	rlimit  uint64   // soft RLIMIT_NOFILE; 0 for ours
	command string   // program to run; empty for ourselves
	bare    bool     // hand over no descriptors
	passwd  string   // what /etc/passwd has to say; empty for the real one
	sockets int

	asUser   bool // run as mail_owner from the start
	terminal bool // standard input is one
}

const testMainCf = `compatibility_level = 3.6
myhostname = mail.example.com
mail_owner = postfix
maillog_file = /var/log/scache.test
`

// newInstance needs postconf(1) and root, and says so.
func newInstance(t *testing.T, mainCf ...string) *instance {
	t.Helper()
	needPostconf(t)
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: this test needs root")
	}
	dir, err := os.MkdirTemp("/tmp", "pf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	in := &instance{t: t, config: dir + "/conf", queue: dir + "/q", sockets: 1}
	for _, d := range []string{dir, in.config, in.queue, in.queue + "/public", in.queue + "/private"} {
		_ = os.Mkdir(d, 0o755)
		_ = os.Chmod(d, 0o755)
	}
	writeMainCf(t, in.config, testMainCf+"queue_directory = "+in.queue+"\n"+strings.Join(mainCf, "\n")+"\n")
	in.log = listenDatagram(t, in.queue+"/public/postlog")
	_ = os.Chmod(in.queue+"/public/postlog", 0o666)
	return in
}

// start runs a daemon as master(8) does, to its end.
func (in *instance) start(args ...string) run {
	in.t.Helper()
	command := in.command
	if command == "" {
		command = "/proc/self/exe"
	}
	cmd := exec.Command(command)
	cmd.Args = append([]string{"scache"}, args...)
	cmd.Dir = in.queue
	cmd.Env = append([]string{
		"MAIL_CONFIG=" + in.config, "MAIL_LOGTAG=postfix", "LANG=C", "GENERATION=17",
		"POSTLOG_SERVICE=" + in.queue + "/public/postlog", "POSTLOG_HOSTNAME=mail.example.com",
		roleVariable + "=daemon",
	}, in.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	statusEnd := -1
	if !in.bare {
		cmd.ExtraFiles, statusEnd = in.descriptors()
	}
	in.prepare(cmd)
	began := time.Now()
	if err := in.launch(cmd); err != nil {
		in.t.Fatal(err)
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	r := run{}
	if err := cmd.Wait(); err != nil {
		if exit := new(exec.ExitError); !errors.As(err, &exit) {
			in.t.Fatal(err)
		}
	}
	r.took = time.Since(began)
	r.status = cmd.ProcessState.ExitCode()
	r.stdout, r.stderr = stdout.String(), withoutCoverage(stderr.String())
	r.log = received(in.t, in.log)
	if statusEnd >= 0 {
		buf := make([]byte, 100)
		n, _ := unix.Read(statusEnd, buf)
		r.master = buf[:max(n, 0)]
		unix.Close(statusEnd)
	}
	return r
}

// prepare makes the process a mail_owner's, or one with a terminal.
func (in *instance) prepare(cmd *exec.Cmd) {
	in.t.Helper()
	if in.asUser {
		u, err := user.Lookup("postfix")
		if err != nil {
			in.t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: false},
		}
	}
	if in.terminal {
		pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
		if err != nil {
			in.t.Skip("SKIPPED: ", err)
		}
		in.t.Cleanup(func() { pty.Close() })
		n, err := unix.IoctlGetInt(int(pty.Fd()), unix.TIOCGPTN)
		if err == nil {
			err = unix.IoctlSetPointerInt(int(pty.Fd()), unix.TIOCSPTLCK, 0)
		}
		if err == nil {
			cmd.Stdin, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
		}
		if err != nil {
			in.t.Fatal(err)
		}
	}
}

// launch starts cmd, under a soft descriptor limit of its own if there is one.
func (in *instance) launch(cmd *exec.Cmd) error {
	if in.rlimit != 0 {
		script := fmt.Sprintf(`ulimit -S -n %d; exec -a "$0" /proc/%d/exe "$@"`, in.rlimit, os.Getpid())
		cmd.Args = append([]string{"bash", "-c", script}, cmd.Args...)
		cmd.Path = "/bin/bash"
	}
	if in.passwd != "" {
		file := in.config + "/passwd"
		if err := os.WriteFile(file, []byte(in.passwd), 0o644); err != nil {
			return err
		}
		script := fmt.Sprintf(`mount --bind %s /etc/passwd && exec -a "$0" /proc/%d/exe "$@"`, file, os.Getpid())
		cmd.Args = append([]string{"unshare", "-m", "bash", "-c", script}, cmd.Args...)
		cmd.Path = "/usr/bin/unshare"
	}
	return cmd.Start()
}

// descriptors are what master(8) hands over from number 3 up, and master's end of
// the status channel.
func (in *instance) descriptors() ([]*os.File, int) {
	in.t.Helper()
	var flow [2]int
	if err := unix.Pipe2(flow[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		in.t.Fatal(err)
	}
	status := socketpair(in.t)
	files := []*os.File{
		os.NewFile(uintptr(flow[0]), "flow"), os.NewFile(uintptr(flow[1]), "flow"),
		os.NewFile(uintptr(status[1]), "status"),
	}
	for i := range in.sockets {
		path := fmt.Sprintf("%s/private/scache%d", in.queue, i)
		os.Remove(path)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			in.t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		f, err := l.File()
		if err != nil {
			in.t.Fatal(err)
		}
		l.Close()
		files = append(files, f)
	}
	return files, status[0]
}
