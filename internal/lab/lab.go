// Package lab runs a real Postfix around the cache under test: a private
// instance below /tmp with its own configuration, queue and log, whose
// programs are copies of the system's, except that scache is the one given.
// Beside it stand receivers (SMTPSink, Sink) and a sender (Send).
//
// Everything is on loopback or UNIX-domain sockets, and a Postfix that runs
// on the same machine is left alone. It needs root, as master(8) does.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Config says what instance to build.
type Config struct {
	Scache string            // program to run as scache; empty: the one that is installed
	Main   map[string]string // main.cf parameters, over the lab's own
	Routes map[string]string // recipient domain -> next hop, such as "a.test": "[127.0.0.1]:2501"

	// The scache line of master.cf.
	Service    string   // service name; empty: scache
	Chroot     bool     // run in the queue directory
	Limit      string   // process limit; empty: 1
	MasterArgs []string // words behind the program's name

	// The smtp line of master.cf.
	SMTPProcs int      // process limit; 0: 10
	SMTPArgs  []string // words behind the program's name

	Services string // more lines of master.cf

	// Enter is words that go before each command, such as nsenter's: the instance
	// runs where they lead to, with the same files below /tmp.
	Enter []string
	// InPlace runs the system's own programs where they are installed, not copies, so that it is
	// seen what becomes of them. The lab's processes are known by that place:
	// only where no other Postfix runs, as in a PID namespace.
	InPlace bool
}

// Lab is one Postfix instance.
type Lab struct {
	cfg   Config
	sys   system
	dir   string
	sbin  string // where its programs are
	guard *guard
}

// New builds an instance; Start sets it going. Whoever calls New calls Close.
func New(cfg Config) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("lab: master(8) starts as root only, and so does a lab")
	}
	sys, err := inspect()
	if err != nil {
		return nil, err
	}
	if cfg.Scache == "" {
		cfg.Scache = filepath.Join(sys.daemonDir, "scache")
	}
	// Not os.TempDir: a UNIX-domain socket's path has 108 bytes.
	dir, err := os.MkdirTemp("/tmp", "scl.")
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	l := &Lab{cfg: cfg, sys: sys, dir: dir, sbin: filepath.Join(dir, "sbin")}
	if cfg.InPlace {
		l.sbin = sys.daemonDir
	}
	if err := l.build(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("lab: %w", err)
	}
	return l, nil
}

func (l *Lab) build() (err error) {
	// The queue has to be searchable by mail_owner; MkdirTemp gives 0700.
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"etc", "meta", "queue", "data"} {
		if err := os.Mkdir(l.path(d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chown(l.path("data"), l.sys.uid, l.sys.gid); err != nil {
		return err
	}
	if !l.cfg.InPlace {
		if err := l.copyPrograms(); err != nil {
			return err
		}
	}
	if err := l.copyMeta(); err != nil {
		return err
	}
	if err := l.writeConfig(); err != nil {
		return err
	}
	l.guard, err = startGuard(l.dir)
	return err
}

// copyPrograms makes copies, since `postfix start` complains of links.
func (l *Lab) copyPrograms() error {
	if err := os.CopyFS(l.sbin, os.DirFS(l.sys.daemonDir)); err != nil {
		return err
	}
	return copyFile(filepath.Join(l.sbin, "scache"), l.cfg.Scache, 0o755)
}

func (l *Lab) copyMeta() error {
	err := copyFile(l.path("meta/postfix-files"), filepath.Join(l.sys.metaDir, "postfix-files"), 0o644)
	if err != nil {
		return err
	}
	err = copyFile(l.path("meta/dynamicmaps.cf"), filepath.Join(l.sys.metaDir, "dynamicmaps.cf"), 0o644)
	if errors.Is(err, fs.ErrNotExist) { // a package that was never configured has none
		return os.WriteFile(l.path("meta/dynamicmaps.cf"), nil, 0o644)
	}
	return err
}

func copyFile(dst, src string, mode fs.FileMode) error {
	data, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	// A new file: writing into the old one would keep its mode.
	if err := os.Remove(dst); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(dst, data, mode)
}

// Start runs `postfix start`.
func (l *Lab) Start(ctx context.Context) error { return l.postfix(ctx, "start") }

// Stop runs `postfix stop` and waits for the last process to go.
func (l *Lab) Stop(ctx context.Context) error {
	if err := l.postfix(ctx, "stop"); err != nil {
		return err
	}
	return Poll(ctx, func() bool { return len(l.Processes()) == 0 })
}

// Reload runs `postfix reload`.
func (l *Lab) Reload(ctx context.Context) error { return l.postfix(ctx, "reload") }

// Check runs `postfix check`, whose findings are warnings in the mail log.
func (l *Lab) Check(ctx context.Context) error { return l.postfix(ctx, "check") }

// Flush has qmgr(8) try deferred mail now.
func (l *Lab) Flush(ctx context.Context) error { return l.postfix(ctx, "flush") }

// Release lets go of mail that an access table has put on hold.
func (l *Lab) Release(ctx context.Context) error {
	if _, err := l.Run(ctx, "postsuper", "-c", l.path("etc"), "-H", "ALL"); err != nil {
		return err
	}
	return l.Flush(ctx)
}

// Close ends what still runs, and removes every trace. Closing twice is harmless.
func (l *Lab) Close() error {
	l.kill()
	l.guard.dismiss()
	return os.RemoveAll(l.dir)
}

// kill ends the instance's processes, master first: it would replace the others.
func (l *Lab) kill() {
	if pid, ok := l.MasterPID(); ok {
		syscall.Kill(pid, syscall.SIGTERM)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for Poll(ctx, func() bool { return len(l.Processes()) == 0 }) != nil {
		for _, p := range l.Processes() {
			syscall.Kill(p.PID, syscall.SIGKILL)
		}
		if len(l.Processes()) == 0 {
			return
		}
		time.Sleep(pollInterval)
	}
}

// postfix runs postfix(1) on the instance.
func (l *Lab) postfix(ctx context.Context, verb string) error {
	_, err := l.Run(ctx, "postfix", "-c", l.path("etc"), verb)
	return err
}

// Run runs one of Postfix's commands on the instance, with nothing of our
// environment, which might name another one, and returns what it says.
func (l *Lab) Run(ctx context.Context, name string, args ...string) (string, error) {
	words := slices.Concat(l.cfg.Enter, []string{filepath.Join(l.sys.commandDir, name)}, args)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "MAIL_CONFIG=" + l.path("etc")}
	// A group of its own: Ctrl-C is for us, and whoever is cancelled takes
	// his shells along.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// postsuper may outlive `postfix reload`; its output is not waited for.
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

func (l *Lab) path(name string) string { return filepath.Join(l.dir, name) }
