// Package master plays Postfix's master(8) for one scache daemon.
//
// It starts the program as master starts it (descriptors, arguments,
// environment, umask, working directory), plays postlogd(8) to it, and watches
// its status channel. Tests and benchmarks use it for our daemon and for
// Postfix's own alike.
package master

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Config says which daemon to run and how. Only Binary is required.
type Config struct {
	Binary string // the program's file

	// The fields of the master.cf line.
	Service      string   // another service name than "scache"
	Unprivileged bool     // -u
	Chroot       bool     // -c
	NotAlone     bool     // leave -l out, as if the process limit were not 1
	Args         []string // further words, such as "-o", "max_idle=1s"

	MainCF   string // text added to the minimal main.cf; a later definition wins
	NoMainCF bool   // no main.cf at all
	Env      []string

	// The limits of descriptors, set before the program's first instruction;
	// zero inherits ours.
	NoFileSoft, NoFileHard uint64

	StatusUnread bool          // do not read the status channel
	Stderr       *os.File      // instead of /dev/null
	BeforeStart  func(*Daemon) // runs while the socket listens and nobody serves it
}

// Generation is what the daemon has to put into its status records; it is
// handed over as octal text.
const Generation = 0o1234

// Daemon is a running (or ended) daemon with its private Postfix instance.
type Daemon struct {
	PID        int
	Dir        string // the private instance; removed by Close
	ConfigDir  string
	QueueDir   string
	SocketPath string

	process *os.Process
	state   *os.ProcessState // valid when done is closed
	done    chan struct{}    // the process has ended and its log is complete
	log     *net.UnixConn    // postlogd's end
	status  *os.File         // master's end of the status channel

	mu      sync.Mutex
	lines   []string
	records []Status
	closed  bool
}

// Status is one record of the status channel.
type Status struct {
	PID        int32
	Generation uint32
	Available  bool
}

// Start starts a daemon. Like master it does not wait for the daemon to be
// ready: what connects meanwhile waits in the listen queue.
func Start(cfg Config) (*Daemon, error) {
	d := &Daemon{done: make(chan struct{})}
	if err := d.start(cfg); err != nil {
		d.Close()
		return nil, fmt.Errorf("master: %w", err)
	}
	return d, nil
}

func (d *Daemon) start(cfg Config) error {
	binary, err := filepath.Abs(cfg.Binary)
	if err != nil {
		return err
	}
	if err := d.layOut(cfg); err != nil {
		return err
	}
	if err := d.openLog(); err != nil {
		return err
	}
	files, err := d.openFiles(cfg)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if cfg.BeforeStart != nil {
		cfg.BeforeStart(d)
	}
	d.process, err = spawn(binary, d.argv(cfg), &os.ProcAttr{
		Dir:   d.QueueDir,
		Env:   d.environment(cfg),
		Files: files,
	}, cfg.NoFileSoft, cfg.NoFileHard)
	if err != nil {
		return err
	}
	d.PID = d.process.Pid
	d.watch(cfg)
	return nil
}

// argv builds the command line in master's order; see POSTFIX.md or
// master_ent.c.
func (d *Daemon) argv(cfg Config) []string {
	argv := []string{"scache"}
	if !cfg.NotAlone {
		argv = append(argv, "-l")
	}
	if cfg.Service != "" {
		argv = append(argv, "-n", cfg.Service)
	}
	argv = append(argv, "-t", "unix")
	if cfg.Unprivileged {
		argv = append(argv, "-u")
	}
	if cfg.Chroot {
		argv = append(argv, "-c")
	}
	return append(argv, cfg.Args...)
}

func (d *Daemon) environment(cfg Config) []string {
	return append([]string{
		"MAIL_CONFIG=" + d.ConfigDir,
		"MAIL_LOGTAG=postfix",
		"LANG=C",
		fmt.Sprintf("GENERATION=%o", Generation),
		"POSTLOG_SERVICE=" + d.postlogPath(),
		"POSTLOG_HOSTNAME=host.example",
	}, cfg.Env...)
}

// watch collects what the daemon says, until it ends.
func (d *Daemon) watch(cfg Config) {
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		d.readLog()
	}()
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		if !cfg.StatusUnread {
			d.readStatus()
		}
	}()
	go func() {
		d.state, _ = d.process.Wait()
		d.endLog()
		<-logged
		<-reported
		close(d.done)
	}()
}

// Dial connects a client. The announcement is not read yet.
func (d *Daemon) Dial() (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: d.SocketPath, Net: "unix"})
}

// DialAs is Dial by another user, whom the daemon sees as its client. It takes root.
func (d *Daemon) DialAs(uid int) (conn *net.UnixConn, err error) {
	err = onOwnThread(func() error {
		// The bare system call changes this thread only.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			return errno
		}
		conn, err = d.Dial()
		return err
	})
	return conn, err
}

// Signal sends the daemon a signal.
func (d *Daemon) Signal(sig os.Signal) error { return d.process.Signal(sig) }

// CloseStatus closes master's end of the status channel, as a reload does: the
// daemon's word to leave.
func (d *Daemon) CloseStatus() error { return d.status.Close() }

// StatusRecords returns the status records read so far.
func (d *Daemon) StatusRecords() []Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Status(nil), d.records...)
}

// Log returns the lines logged so far, each as it was sent.
func (d *Daemon) Log() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.lines...)
}

// Texts returns what was logged without time, host and tag.
func (d *Daemon) Texts() []string {
	lines := d.Log()
	for i, line := range lines {
		if _, text, ok := strings.Cut(line, "]: "); ok {
			lines[i] = text
		}
	}
	return lines
}

// WaitLog waits for a line that matches.
func (d *Daemon) WaitLog(re *regexp.Regexp, timeout time.Duration) (string, error) {
	for end := time.Now().Add(timeout); ; time.Sleep(5 * time.Millisecond) {
		for _, line := range d.Log() {
			if re.MatchString(line) {
				return line, nil
			}
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("master: nothing logged like %q in %v", re, timeout)
		}
	}
}

// ErrRunning says that the daemon has not ended in the time given.
var ErrRunning = errors.New("master: the daemon is still running")

// Wait waits for the daemon's end. After it Log is complete.
func (d *Daemon) Wait(timeout time.Duration) (*os.ProcessState, error) {
	select {
	case <-d.done:
		return d.state, nil
	case <-time.After(timeout):
		return nil, ErrRunning
	}
}

// Close ends the daemon if it still runs, and removes its files.
func (d *Daemon) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	if d.process != nil {
		d.process.Kill()
		d.status.Close()
		d.mu.Unlock() // the readers need it to come to their end
		<-d.done
		d.mu.Lock()
	} else if d.status != nil {
		d.status.Close()
	}
	if d.log != nil {
		d.log.Close()
	}
	if d.Dir == "" {
		return nil
	}
	return os.RemoveAll(d.Dir)
}

// SetNoFile changes the running daemon's limits of descriptors. That needs its user and
// group, or a right that root in a container may lack.
func (d *Daemon) SetNoFile(soft, hard uint64) error {
	uid, gid, _, _, err := d.Credentials()
	if err != nil {
		return err
	}
	return onOwnThread(func() error {
		// The bare system calls change this thread only.
		g, u := uintptr(gid), uintptr(uid)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, g, g, g); errno != 0 {
			return errno
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, u, u, u); errno != 0 {
			return errno
		}
		return unix.Prlimit(d.PID, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: soft, Max: hard}, nil)
	})
}
