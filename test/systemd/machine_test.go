package systemd_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
)

// patience bounds every wait; what is asserted is never how long something took.
const patience = time.Minute

// machine is a systemd that runs in namespaces of its own.
type machine struct {
	t    *testing.T
	cmd  *exec.Cmd
	init string // the process ID of its process 1, here
}

// boot starts a machine with the units as they are shipped and these files. private, if not empty, is
// the directory here that is Postfix's private one there. Where a machine cannot be, the test is skipped.
func boot(t *testing.T, private string, files map[string]string) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "namespaces and mounts are for root")
	}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		skip(t, err.Error())
	}
	dir, err := os.MkdirTemp("/tmp", "scs.")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	fill(t, filepath.Join(dir, "files"), files)
	if private != "" {
		if err := os.Symlink(private, filepath.Join(dir, "private")); err != nil {
			t.Fatal(err)
		}
	}
	script, err := filepath.Abs("testdata/boot")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, cmd: exec.Command("unshare", "--mount", script, dir)}
	var said bytes.Buffer
	m.cmd.Stdout, m.cmd.Stderr = &said, &said
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		skip(t, err.Error())
	}
	ended := make(chan struct{})
	go func() {
		m.cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() { m.stop(ended) })
	prepared := func() bool {
		_, err := os.Stat(filepath.Join(dir, "booting"))
		return err == nil
	}
	m.poll("the namespaces", func() bool { return prepared() || isClosed(ended) })
	if !prepared() {
		skip(t, "no namespaces for a systemd: "+said.String())
	}
	m.init = child(child(fmt.Sprint(m.cmd.Process.Pid)))
	if !m.holds(func() bool { _, err := m.run("systemctl", "show", "--property=Version"); return err == nil }) {
		skip(t, "systemd does not start in namespaces here")
	}
	return m
}

// fill lays out the files to be put over the root directory.
func fill(t *testing.T, root string, files map[string]string) {
	t.Helper()
	copied := map[string]string{
		"usr/sbin/scache":    binary,
		"usr/sbin/scachectl": scachectl,
	}
	for _, unit := range shipped {
		copied["etc/systemd/system/"+unit] = "../../deploy/systemd/" + unit
	}
	all := map[string]string{
		"etc/systemd/system/scache-test.target": "[Unit]\nWants=systemd-journald.service scache.socket\n",
	}
	for name, path := range copied {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(text)
	}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		path := filepath.Join(root, name)
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "usr/sbin/") {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// stop ends the machine by its process 1, so that the script tidies up.
func (m *machine) stop(ended <-chan struct{}) {
	if m.t.Failed() && m.init != "" {
		status, _ := m.run(append([]string{"systemctl", "--no-pager", "status"}, shipped...)...)
		journal, _ := m.run("journalctl", "--no-pager", "--lines=50")
		m.t.Logf("%s\n%s", status, journal)
	}
	if m.init != "" {
		if out, err := exec.Command("kill", "-KILL", m.init).CombinedOutput(); err != nil {
			m.t.Errorf("%v: %s", err, out)
		}
	} else {
		m.cmd.Process.Kill()
	}
	<-ended
}

// run runs a command on the machine.
func (m *machine) run(arguments ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"--target=" + m.init, "--all", "--root", "--wd"}, arguments...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "SYSTEMD_COLORS=0"}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// property is one of a unit's.
func (m *machine) property(unit, name string) string {
	m.t.Helper()
	value, err := m.run("systemctl", "show", "--value", "--property="+name, unit)
	if err != nil {
		m.t.Fatalf("%v: %s", err, value)
	}
	return value
}

// holds waits for a condition.
func (m *machine) holds(condition func() bool) bool {
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	return lab.Poll(ctx, condition) == nil
}

func (m *machine) poll(what string, condition func() bool) {
	m.t.Helper()
	if !m.holds(condition) {
		m.t.Fatalf("in vain: %s", what)
	}
}

// path is that of a file of the machine, here.
func (m *machine) path(name string) string { return "/proc/" + m.init + "/root" + name }

// child is the process that another one has started last; none is no process.
func child(pid string) string {
	children, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	fields := strings.Fields(string(children))
	if len(fields) == 0 {
		return ""
	}
	return fields[len(fields)-1]
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
