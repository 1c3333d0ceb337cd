package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/scache/scache/postfix"
	"github.com/scache/scache/server"
	"github.com/scache/scache/store"
)

// serve is "scache serve": the cache without master(8), in the foreground. It
// returns the exit status: 0 after SIGINT or SIGTERM, or when another process has taken over, 1 if
// it could not serve, 2 for a wrong command line.
func serve(arguments []string, stderr io.Writer) int {
	service, refused := joinService()
	o, err := parseServe(arguments, stderr)
	if err == nil && refused == nil && len(o.paths)+len(service.listeners) == 0 && !isSuccessor() {
		err = errors.New("-socket is required, unless systemd passes sockets")
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "scache serve:", err)
		return 2
	}
	log := postfix.NewStderrLog(o.logFormat)
	o.config.Log = log
	if err = refused; err == nil {
		err = serveSockets(o, service)
	}
	if err != nil {
		log.Errorf("%v", err)
		return 1
	}
	return 0
}

// serveOptions are the command line of "scache serve".
type serveOptions struct {
	paths     []string // of the sockets to make, each of a cache of its own
	mode      uint32   // their permissions
	modeGiven bool
	takeOver  bool // from the server that is there already, if there is one
	logFormat postfix.StderrFormat
	config    server.Config // without the policy

	policyFile string
}

// parseServe reads the command line; the configuration has no log yet.
func parseServe(arguments []string, stderr io.Writer) (o serveOptions, err error) {
	config := &o.config
	config.Parent = -1
	config.HandOver = true
	config.Version = version
	flags := flag.NewFlagSet("scache serve", flag.ContinueOnError)
	flags.Func("socket", "`path` of the UNIX-domain socket to create and listen on (required, unless systemd passes sockets); given again: one more, with a cache of its own", o.addPath)
	modeFlag := flags.String("mode", "0600", "permissions of the sockets, in `octal`")
	durationVar(flags, &config.TTLLimit, "ttl-limit", 2*time.Second, "as connection_cache_ttl_limit: the longest time to live, a `duration` of whole seconds")
	durationVar(flags, &config.StatusUpdateTime, "status-update-time", 600*time.Second, "as connection_cache_status_update_time: the `duration` between two statistics in the log")
	durationVar(flags, &config.IPCTimeout, "ipc-timeout", 3600*time.Second, "as ipc_timeout: the `duration` for which a client may stop in mid-request")
	durationVar(flags, &config.MaxIdle, "max-idle", 0, "as max_idle: exit after this `duration` without a client; 0 is never")
	defaults := postfix.Defaults()
	flags.IntVar(&config.Limits.Connections, "size-limit", defaults.SizeLimit, "as connection_cache_size_limit: connections in all; 0 is what the limit of open files allows")
	flags.IntVar(&config.Limits.PerEndpoint, "endpoint-limit", defaults.EndpointLimit, "as connection_cache_endpoint_limit: connections per endpoint; 0 is no limit")
	flags.IntVar(&config.Limits.Bindings, "binding-limit", defaults.BindingLimit, "as connection_cache_binding_limit: destinations' endpoints in all")
	flags.IntVar(&config.Limits.PerDestination, "destination-limit", defaults.DestinationLimit, "as connection_cache_destination_limit: endpoints of a destination")
	flags.IntVar(&config.Limits.Text, "text-limit", defaults.TextLimit, "as connection_cache_text_limit: bytes of labels and properties")
	flags.IntVar(&config.ClientMemory, "client-memory-limit", defaults.ClientMemoryLimit, "as connection_cache_client_memory_limit: bytes of unfinished requests and unread replies, of all sockets")
	flags.BoolVar(&o.takeOver, "takeover", false, "take over from the server that listens on the sockets, if there is one: its sockets, connections, clients, counters; it ends then")
	order := flags.String("reuse-order", "fifo", "as connection_cache_reuse_order: fifo, or lifo")
	handshake := flags.String("close-handshake", "none", "as connection_cache_close_handshake: none, or quit")
	flags.StringVar(&o.policyFile, "policy-file", "", "as connection_cache_policy_file: `path` of a file of rules for destinations and endpoints")
	logFormat := flags.String("log-format", "auto", "what the log looks like: text, journal, json, or auto, which is journal where standard error goes there, else text")
	flags.BoolVar(&config.Verbose, "v", false, "log clients and requests")
	flags.SetOutput(io.Discard) // an error would drown in the usage
	if err := flags.Parse(arguments); errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stderr, "usage: scache serve -socket PATH [flags]\n\nA connection cache without Postfix's master(8), in the foreground.\nDurations are seconds, or such as 90s, 10m, 1h30m. Limits are each socket's.\n\n")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return o, err
	} else if err != nil {
		return o, fmt.Errorf("%w (scache serve -h tells of the flags)", err)
	}
	flags.Visit(func(f *flag.Flag) { o.modeGiven = o.modeGiven || f.Name == "mode" })
	format, logFormatKnown := logFormats()[*logFormat]
	permissions, err := strconv.ParseUint(*modeFlag, 8, 9)
	switch {
	case err != nil:
		err = fmt.Errorf("-mode %s: not an octal number up to 777", *modeFlag)
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument: %s", flags.Arg(0))
	case !logFormatKnown:
		err = fmt.Errorf("-log-format %s: want auto, text, journal or json", *logFormat)
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
	o.mode, o.logFormat = uint32(permissions), format
	return o, err
}

// durationVar defines a flag for a duration, which may be plain seconds, as in main.cf.
func durationVar(flags *flag.FlagSet, d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	flags.Var((*duration)(d), name, usage)
}

type duration time.Duration

func (d *duration) String() string { return time.Duration(*d).String() }

func (d *duration) Set(text string) error {
	seconds, err := strconv.Atoi(text)
	if err == nil && 0 <= seconds && seconds <= math.MaxInt32 {
		*d = duration(seconds) * duration(time.Second)
		return nil
	}
	parsed, err := time.ParseDuration(text)
	if parsed > math.MaxInt32*time.Second {
		return errors.New("too long")
	}
	*d = duration(parsed)
	return err
}

func (o *serveOptions) addPath(path string) error {
	switch {
	case path == "":
		return errors.New("empty")
	case path[0] == '@': // which bind(2) takes for something else
		return errors.New("a path must not begin with @")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if slices.Contains(o.paths, path) {
		return errors.New("given twice")
	}
	o.paths = append(o.paths, path)
	return nil
}

// serveSockets serves until a signal or max_idle ends it, or another process takes over.
func serveSockets(o serveOptions, service *service) error {
	service.reportOn(&o.config)
	next := &successor{log: o.config.Log, service: service, patience: successorPatience}
	o.config.Succeeded = next.succeeded
	end := &ender{}
	err := serveOnce(o, service, next, end)
	if errors.Is(err, server.ErrDied) && !end.asked.Load() {
		o.config.Log.Warningf("%v: starting with an empty cache", err)
		o.takeOver = false
		err = serveOnce(o, service, next, end)
	}
	if errors.Is(err, server.ErrDied) || errors.Is(err, errCancelled) { // a signal has ended both, or us
		o.config.Log.Infof("not taking over: %v", err)
		return nil
	}
	return err
}

// serveOnce is serveSockets without the second attempt, for when the server that we take over from
// has died.
func serveOnce(o serveOptions, service *service, next *successor, end *ender) (err error) {
	if o.config.Policy, err = loadPolicy(o.policyFile); err != nil {
		return err
	}
	log := o.config.Log
	before, err := findServerBefore(o)
	if err != nil {
		return err
	}
	defer before.close()
	sockets, err := openSockets(o.paths, o.mode, before.there())
	if err != nil {
		return err
	}
	defer func() { closeSockets(sockets) }()
	caches := service.caches()
	for _, s := range sockets {
		caches = append(caches, s.cache())
	}
	if len(caches) == 0 && !before.there() { // systemd's went with the server before
		return errors.New("there is no socket to serve")
	}
	s, err := server.New(o.config, caches...)
	if err != nil {
		return err
	}
	// Before anybody can take us for the server.
	end.stopAtSignal(s)
	next.replaceAtHangUp(s)
	if sockets, err = before.takeOver(s, sockets, end); err != nil {
		return err
	}
	for _, path := range o.paths {
		if info, err := os.Lstat(path); o.modeGiven && err == nil && info.Mode().Perm() != fs.FileMode(o.mode) {
			log.Warningf("%s was taken over, and keeps its permissions: %#o, not -mode %#o", path, info.Mode().Perm(), o.mode)
		}
		log.Infof("version %s listening on %s", version, path)
	}
	service.ready()
	err = s.Run()
	before.waitForEnd()
	if errors.Is(err, server.ErrSucceeded) {
		sockets = nil // they are another process' now
		return nil
	}
	return err
}
