package master_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/internal/master"
	"golang.org/x/sys/unix"
)

// The stock daemon, where Debian has it.
const stock = "/usr/lib/postfix/sbin/scache"

func start(t *testing.T, cfg master.Config) *master.Daemon {
	t.Helper()
	if _, err := os.Stat(stock); err != nil {
		t.Skip("Postfix is not installed")
	}
	cfg.Binary = stock
	d, err := master.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// A program that shows what it was started with: descriptor 6 must be the
// listening socket, and so on.
func TestWhatTheDaemonGets(t *testing.T) {
	script := t.TempDir() + "/show"
	os.WriteFile(script, []byte(`#!/bin/sh
for i in 0 1 2 3 4 5 6; do echo "$i $(readlink /proc/$$/fd/$i) $(grep flags /proc/$$/fdinfo/$i)" >&2; done
tr '\0' '\n' </proc/$$/environ | cut -d= -f1 >&2
ls /proc/$$/fd >&2
echo "umask $(umask) cwd $(pwd) limit $(ulimit -Sn)/$(ulimit -Hn)" >&2
`), 0o755)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d, err := master.Start(master.Config{Binary: script, Stderr: w, NoFileSoft: 100, NoFileHard: 200})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Wait(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 8192)
	n, _ := r.Read(text)
	got := string(text[:n])
	for _, want := range []string{
		`(?m)^0 /dev/null flags:\s0100002$`,
		`(?m)^3 pipe:.* flags:\s04000$`,
		`(?m)^4 pipe:.* flags:\s04001$`,
		`(?m)^5 socket:.* flags:\s02$`,
		`(?m)^6 socket:.* flags:\s04002$`,
		`\n0\n1\n(1\d\n)*2\n3\n4\n5\n6\numask`, // 10 and 11 are the shell's
		`umask 0077 cwd ` + d.QueueDir + ` limit 100/200
`,
		`MAIL_CONFIG\nMAIL_LOGTAG\nLANG\nGENERATION\nPOSTLOG_SERVICE\nPOSTLOG_HOSTNAME\n`,
	} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

func TestStockDaemonServesAndLeaves(t *testing.T) {
	d := start(t, master.Config{Unprivileged: true, Chroot: true})
	c, err := d.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 100)
	if n, err := c.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "protocol\x00") {
		t.Fatalf("announcement %q, %v", buf[:n], err)
	}
	if uid, gid, root, _, err := d.Credentials(); err != nil || uid == 0 || gid == 0 || root != d.QueueDir {
		t.Errorf("uid %d, gid %d, root %s, %v", uid, gid, root, err)
	}
	if n, err := d.FDCount(); err != nil || n < 8 {
		t.Errorf("%d descriptors, %v", n, err)
	}
	c.Write([]byte("request\x00find_endp\x00label\x00x\x00\x00"))
	if n, err := c.Read(buf); err != nil || n != 20 {
		t.Fatalf("reply %q, %v", buf[:n], err)
	}
	for end := time.Now().Add(10 * time.Second); len(d.StatusRecords()) < 2 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	d.CloseStatus()
	state, err := d.Wait(10 * time.Second)
	if err != nil || state.ExitCode() != 0 {
		t.Fatalf("ended with %v, %v", state, err)
	}
	if log := d.Texts(); len(log) != 2 || log[1] != "statistics: address lookup hits=0 miss=1 success=0%" {
		t.Errorf("log %q", log)
	}
	if s := d.StatusRecords(); len(s) != 2 || s[1] != (master.Status{PID: int32(d.PID), Generation: master.Generation, Available: true}) {
		t.Errorf("status records %v", s)
	}
}

func TestCloseEndsTheProcess(t *testing.T) {
	d := start(t, master.Config{})
	pid := d.PID
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("kill after Close: %v", err)
	}
	if _, err := os.Stat(d.Dir); !os.IsNotExist(err) {
		t.Errorf("directory still there: %v", err)
	}
}
