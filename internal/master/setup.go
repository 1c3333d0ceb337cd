package master

import (
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The daemon's view of its configuration; the queue directory is added.
// maillog_file only has to be set: it turns logging to postlogd on.
const minimalMainCF = `compatibility_level = 3.6
mail_owner = postfix
myhostname = host.example
maillog_file = /dev/stdout
`

// layOut makes the private Postfix instance. Its path is short, since a
// socket's path must not exceed 108 bytes, and open to mail_owner.
func (d *Daemon) layOut(cfg Config) (err error) {
	if d.Dir, err = os.MkdirTemp("", "scache"); err != nil {
		return err
	}
	d.ConfigDir = filepath.Join(d.Dir, "etc")
	d.QueueDir = filepath.Join(d.Dir, "queue")
	name := cfg.Service
	if name == "" {
		name = "scache"
	}
	d.SocketPath = filepath.Join(d.QueueDir, "private", name)
	for _, dir := range []string{d.ConfigDir, d.QueueDir, filepath.Dir(d.SocketPath), filepath.Dir(d.postlogPath())} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(d.Dir, 0o755); err != nil {
		return err
	}
	if cfg.NoMainCF {
		return nil
	}
	text := minimalMainCF + "queue_directory = " + d.QueueDir + "\n" + cfg.MainCF
	file := filepath.Join(d.ConfigDir, "main.cf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	// Postfix programs wait until main.cf is a few seconds old.
	past := time.Now().Add(-time.Minute)
	return os.Chtimes(file, past, past)
}

// postlogPath is where $queue_directory and $postlog_service_name put it:
// after reading main.cf a daemon looks there, whatever POSTLOG_SERVICE says.
func (d *Daemon) postlogPath() string { return filepath.Join(d.QueueDir, "public", "postlog") }

func (d *Daemon) openLog() (err error) {
	d.log, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: d.postlogPath(), Net: "unixgram"})
	return err
}

// readLog collects lines until endLog. What the daemon has sent is in the queue
// when it ends, so that the log is complete when the queue is found empty.
func (d *Daemon) readLog() {
	buf := make([]byte, 64<<10)
	add := func(n int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.lines = append(d.lines, string(buf[:n]))
	}
	for {
		n, err := d.log.Read(buf)
		if err != nil {
			break
		}
		add(n)
	}
	raw, err := d.log.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		for {
			n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			add(n)
		}
	})
}

// endLog says that the daemon has ended.
func (d *Daemon) endLog() { d.log.SetReadDeadline(time.Unix(1, 0)) }

func (d *Daemon) readStatus() {
	var record [12]byte
	for have := 0; ; {
		n, err := d.status.Read(record[have:])
		if err != nil {
			return
		}
		if have += n; have < len(record) {
			continue
		}
		have = 0
		s := Status{
			PID:        int32(hostOrder(record[0:])),
			Generation: hostOrder(record[4:]),
			Available:  hostOrder(record[8:]) == 1,
		}
		d.mu.Lock()
		d.records = append(d.records, s)
		d.mu.Unlock()
	}
}

// openFiles opens what the daemon finds at 0 to 6. Descriptors get into os
// files by NewFile only: it leaves O_NONBLOCK as it is, also when the file is
// handed to a child.
func (d *Daemon) openFiles(cfg Config) (files []*os.File, err error) {
	add := func(fd int, name string) { files = append(files, os.NewFile(uintptr(fd), name)) }
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			files = nil
		}
	}()
	for i := range 3 {
		if i == 2 && cfg.Stderr != nil {
			fd, err := unix.FcntlInt(cfg.Stderr.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return files, err
			}
			add(fd, "stderr")
			continue
		}
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return files, err
		}
		add(fd, "/dev/null")
	}
	var flow [2]int
	if err := unix.Pipe2(flow[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return files, err
	}
	add(flow[0], "flow")
	add(flow[1], "flow")
	status, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return files, err
	}
	add(status[1], "status")
	// Our end is not blocking, so that Close ends a Read.
	if err := unix.SetNonblock(status[0], true); err != nil {
		return files, err
	}
	d.status = os.NewFile(uintptr(status[0]), "status")
	fd, err := d.listen()
	if err != nil {
		return files, err
	}
	add(fd, "listener")
	return files, nil
}

// listen binds the socket under a path relative to the queue directory, as
// master does.
func (d *Daemon) listen() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	name, err := filepath.Rel(d.QueueDir, d.SocketPath)
	if err == nil {
		err = onOwnThread(func() error {
			if err := unix.Chdir(d.QueueDir); err != nil {
				return err
			}
			return unix.Bind(fd, &unix.SockaddrUnix{Name: name})
		})
	}
	if err == nil {
		err = os.Chmod(d.SocketPath, 0o666)
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// spawn starts the program with umask 077 and, where asked for, its own limits
// of descriptors.
func spawn(binary string, argv []string, attr *os.ProcAttr, soft, hard uint64) (p *os.Process, err error) {
	err = onOwnThread(func() error {
		unix.Umask(0o077)
		// Nothing but 0 to 6 shall be open in the daemon, whatever this
		// process was started with.
		unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
		if soft == 0 && hard == 0 {
			p, err = os.StartProcess(binary, argv, attr)
			return err
		}
		// A traced child stops at its exec. There it gets its limits: set
		// in this process they would be everybody's.
		attr.Sys = &syscall.SysProcAttr{Ptrace: true}
		if p, err = os.StartProcess(binary, argv, attr); err != nil {
			return err
		}
		var ws unix.WaitStatus
		if _, err := unix.Wait4(p.Pid, &ws, 0, nil); err != nil {
			return err
		}
		if !ws.Stopped() {
			return fmt.Errorf("the child did not stop at exec: status %#x", ws)
		}
		if err := unix.Prlimit(p.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: soft, Max: hard}, nil); err != nil {
			p.Kill()
			return fmt.Errorf("prlimit: %w", err)
		}
		return unix.PtraceDetach(p.Pid)
	})
	return p, err
}

// onOwnThread runs f on a thread with a working directory and umask of its own.
// The thread ends with f: its goroutine stays locked to it.
func onOwnThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}
