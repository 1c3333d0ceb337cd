package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/postfix"
	"github.com/scache/scache/server"
)

// serve is "scache serve": the cache without master(8), in the foreground. It
// returns the exit status: 0 after SIGINT, SIGTERM or SIGHUP, 1 if it could not serve, 2 for
// a wrong command line.
func serve(arguments []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("scache serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	socket := flags.String("socket", "", "`path` of the UNIX-domain socket to create and listen on (required)")
	mode := flags.String("mode", "0600", "permissions of the socket, in `octal`")
	ttlLimit := flags.Duration("ttl-limit", 2*time.Second, "as connection_cache_ttl_limit: the longest time to live, whole seconds")
	statusUpdate := flags.Duration("status-update-time", 600*time.Second, "as connection_cache_status_update_time: how often to log statistics")
	ipcTimeout := flags.Duration("ipc-timeout", 3600*time.Second, "as ipc_timeout: how long a client may stop in mid-request")
	maxIdle := flags.Duration("max-idle", 0, "as max_idle: exit after so long without a client; 0 is never")
	verbose := flags.Bool("v", false, "log clients and requests")
	flags.Usage = func() {
		fmt.Fprint(stderr, "usage: scache serve -socket PATH [flags]\n\nA connection cache without Postfix's master(8), in the foreground.\nDurations are such as 90s, 10m, 1h30m.\n\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(arguments); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	permissions, err := strconv.ParseUint(*mode, 8, 9)
	switch {
	case err != nil:
		err = fmt.Errorf("-mode %s: not an octal number up to 777", *mode)
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument: %s", flags.Arg(0))
	case *socket == "":
		err = errors.New("-socket is required")
	case *ttlLimit < time.Second || *ttlLimit%time.Second != 0:
		err = errors.New("-ttl-limit must be whole seconds, at least 1s")
	case *statusUpdate <= 0 || *ipcTimeout <= 0:
		err = errors.New("-status-update-time and -ipc-timeout must be longer than 0")
	case *maxIdle < 0:
		err = errors.New("-max-idle must not be negative")
	}
	if err != nil {
		fmt.Fprintln(stderr, "scache serve:", err)
		return 2
	}
	verbosity := 0
	if *verbose {
		verbosity = 1
	}
	log := postfix.NewStderrLog(verbosity)
	err = serveSocket(*socket, uint32(permissions), server.Config{
		Log:              log,
		Verbose:          *verbose,
		TTLLimit:         *ttlLimit,
		StatusUpdateTime: *statusUpdate,
		IPCTimeout:       *ipcTimeout,
		MaxIdle:          *maxIdle,
		Parent:           -1,
	})
	if err != nil {
		log.Errorf("%v", err)
		return 1
	}
	return 0
}

func serveSocket(path string, mode uint32, config server.Config) error {
	if err := checkPath(path); err != nil {
		return err
	}
	listener, remove, err := listen(path, mode)
	if err != nil {
		return err
	}
	defer remove()
	defer unix.Close(listener)
	s, err := server.New(config, listener)
	if err != nil {
		return err
	}
	stopOnSignal(s, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	config.Log.Infof("version %s listening on %s", version, path)
	return s.Run()
}

// listenBacklog is how many clients may wait to be accepted; the kernel lowers it
// to net.core.somaxconn.
const listenBacklog = 4096

// checkPath refuses what bind(2) would refuse, or take for something else, with
// less clear words.
func checkPath(path string) error {
	const longest = len(unix.RawSockaddrUnix{}.Path) - 1
	switch {
	case len(path) > longest:
		return fmt.Errorf("%s: the path of a socket has %d bytes at most", path, longest)
	case path[0] == '@':
		return fmt.Errorf("%s: a path must not begin with @", path)
	}
	return nil
}

// listen creates a listening socket with permissions mode. A socket that is there
// already is replaced if nobody listens on it; anything else is left alone. remove
// unlinks the socket, if it is still the one created here.
func listen(path string, mode uint32) (fd int, remove func(), err error) {
	// Two that start at a time must not take each other's socket, bound but not
	// yet listening, for a stale one.
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return -1, nil, err
	}
	defer directory.Close()
	if err := unix.Flock(int(directory.Fd()), unix.LOCK_EX); err != nil {
		return -1, nil, fmt.Errorf("flock %s: %w", directory.Name(), err)
	}
	if err := clear(path); err != nil {
		return -1, nil, err
	}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("socket: %w", err)
	}
	created, err := bind(fd, path, mode)
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, func() {
		if now, err := os.Lstat(path); err == nil && os.SameFile(created, now) {
			os.Remove(path)
		}
	}, nil
}

func bind(fd int, path string, mode uint32) (created fs.FileInfo, err error) {
	// The mask, not a chmod afterwards: at no time may others connect.
	old := unix.Umask(0o777 &^ int(mode))
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("bind %s: %w", path, err)
	}
	if created, err = os.Lstat(path); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, listenBacklog); err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return created, nil
}

// clear makes way for a new socket at path.
func clear(path string) error {
	found, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case found.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	probe, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(probe)
	// EAGAIN is a queue that is full: somebody listens.
	switch err := unix.Connect(probe, &unix.SockaddrUnix{Name: path}); err {
	case nil, unix.EAGAIN:
		return fmt.Errorf("another server is listening on %s", path)
	case unix.ECONNREFUSED:
		return os.Remove(path)
	default:
		return fmt.Errorf("connect to %s, to see whether a server is listening on it: %w", path, err)
	}
}
