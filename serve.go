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
	"github.com/scache/scache/store"
)

// serve is "scache serve": the cache without master(8), in the foreground. It
// returns the exit status: 0 after SIGINT, SIGTERM or SIGHUP, 1 if it could not serve, 2 for
// a wrong command line.
func serve(arguments []string, stderr io.Writer) int {
	path, mode, config, err := parseServe(arguments, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage): // has been told
		return 2
	case err != nil:
		fmt.Fprintln(stderr, "scache serve:", err)
		return 2
	}
	verbosity := 0
	if config.Verbose {
		verbosity = 1
	}
	log := postfix.NewStderrLog(verbosity)
	config.Log = log
	if err := serveSocket(path, mode, config); err != nil {
		log.Errorf("%v", err)
		return 1
	}
	return 0
}

var errUsage = errors.New("wrong flags")

// parseServe reads the command line; the configuration has no log yet.
func parseServe(arguments []string, stderr io.Writer) (socket string, mode uint32, config server.Config, err error) {
	config.Parent = -1
	flags := flag.NewFlagSet("scache serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&socket, "socket", "", "`path` of the UNIX-domain socket to create and listen on (required)")
	modeFlag := flags.String("mode", "0600", "permissions of the socket, in `octal`")
	flags.DurationVar(&config.TTLLimit, "ttl-limit", 2*time.Second, "as connection_cache_ttl_limit: the longest time to live, whole seconds")
	flags.DurationVar(&config.StatusUpdateTime, "status-update-time", 600*time.Second, "as connection_cache_status_update_time: how often to log statistics")
	flags.DurationVar(&config.IPCTimeout, "ipc-timeout", 3600*time.Second, "as ipc_timeout: how long a client may stop in mid-request")
	flags.DurationVar(&config.MaxIdle, "max-idle", 0, "as max_idle: exit after so long without a client; 0 is never")
	flags.IntVar(&config.Limits.Connections, "size-limit", 0, "as connection_cache_size_limit: connections in all; 0 is what the limit of open files allows")
	flags.IntVar(&config.Limits.PerEndpoint, "endpoint-limit", 0, "as connection_cache_endpoint_limit: connections per endpoint; 0 is no limit")
	flags.IntVar(&config.Limits.Bindings, "binding-limit", 1<<20, "as connection_cache_binding_limit: destinations' endpoints in all")
	flags.IntVar(&config.Limits.PerDestination, "destination-limit", 4096, "as connection_cache_destination_limit: endpoints of a destination")
	flags.IntVar(&config.Limits.Text, "text-limit", 256<<20, "as connection_cache_text_limit: bytes of labels and properties")
	flags.IntVar(&config.ClientMemory, "client-memory-limit", 64<<20, "as connection_cache_client_memory_limit: bytes of unfinished requests and unread replies")
	order := flags.String("reuse-order", "fifo", "as connection_cache_reuse_order: fifo, or lifo")
	handshake := flags.String("close-handshake", "none", "as connection_cache_close_handshake: none, or quit")
	flags.BoolVar(&config.Verbose, "v", false, "log clients and requests")
	flags.Usage = func() {
		fmt.Fprint(stderr, "usage: scache serve -socket PATH [flags]\n\nA connection cache without Postfix's master(8), in the foreground.\nDurations are such as 90s, 10m, 1h30m.\n\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(arguments); errors.Is(err, flag.ErrHelp) {
		return "", 0, config, err
	} else if err != nil {
		return "", 0, config, errUsage
	}
	permissions, err := strconv.ParseUint(*modeFlag, 8, 9)
	switch {
	case err != nil:
		err = fmt.Errorf("-mode %s: not an octal number up to 777", *modeFlag)
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument: %s", flags.Arg(0))
	case socket == "":
		err = errors.New("-socket is required")
	case config.TTLLimit < time.Second || config.TTLLimit%time.Second != 0:
		err = errors.New("-ttl-limit must be whole seconds, at least 1s")
	case config.StatusUpdateTime <= 0 || config.IPCTimeout <= 0:
		err = errors.New("-status-update-time and -ipc-timeout must be longer than 0")
	case config.MaxIdle < 0:
		err = errors.New("-max-idle must not be negative")
	case config.Limits.Connections < 0 || config.Limits.PerEndpoint < 0:
		err = errors.New("-size-limit and -endpoint-limit must not be negative")
	case min(config.Limits.Bindings, config.Limits.PerDestination, config.Limits.Text, config.ClientMemory) < 1:
		err = errors.New("-binding-limit, -destination-limit, -text-limit and -client-memory-limit must be at least 1")
	case *order != "fifo" && *order != "lifo":
		err = fmt.Errorf("-reuse-order %s: want fifo or lifo", *order)
	case *handshake != "none" && *handshake != "quit":
		err = fmt.Errorf("-close-handshake %s: want none or quit", *handshake)
	}
	if *order == "lifo" {
		config.Order = store.NewestFirst
	}
	config.Quit = *handshake == "quit"
	return socket, uint32(permissions), config, err
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
