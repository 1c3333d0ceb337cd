// Scache is a shared connection cache, a drop-in replacement for Postfix's
// scache(8). Started by master(8) it takes the options of every Postfix daemon;
// as "scache serve" it runs without one. See README.md.
package main

import (
	"cmp"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/policy"
	"github.com/scache/scache/postfix"
	"github.com/scache/scache/server"
	"github.com/scache/scache/store"
)

// version is set by the linker.
var version = "development"

const usage = `scache is started by Postfix's master(8), see the manual page scache(8).

To run it without Postfix:   scache serve -socket PATH   (scache serve -h explains)
To see whether it answers:   scache check -socket PATH
To see which one this is:    scache -version
`

func main() {
	// None of these words can be master(8)'s: its first one is an option of the
	// kind that postfix.parseOptions knows.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve":
			os.Exit(serve(os.Args[2:], os.Stderr))
		case "check":
			os.Exit(check(os.Args[2:], os.Stdout, os.Stderr))
		case "-version", "--version", "version":
			fmt.Println("scache", version)
			return
		case "-h", "-help", "--help", "help":
			fmt.Print(usage)
			return
		}
		if word := os.Args[1]; !strings.HasPrefix(word, "-") {
			fmt.Fprintf(os.Stderr, "scache: there is no command %s\n\n%s", word, usage)
			os.Exit(2)
		}
	}
	daemon()
}

// daemon is life under master(8). Whatever keeps it from serving is fatal: a line
// in the log, a pause, exit status 1.
func daemon() {
	var rules *policy.Policy
	var mistake error // in what Postfix does not have: mail must not wait because of that
	d := postfix.Start(os.Args, func(p *postfix.Params) {
		rules, mistake = loadPolicy(p.PolicyFile)
		mistake = cmp.Or(p.Mistake, mistake)
	})
	defer d.Log.Recover()
	if mistake != nil {
		d.Log.Errorf("%v; nothing is cached until that is mended and Postfix reloaded", mistake)
	}
	watchdog := postfix.NewWatchdog(d.Params.DaemonTimeout, func() { d.Log.Fatalf("watchdog timeout") })
	config := server.Config{
		Log:              d.Log,
		Verbose:          d.Verbose > 0,
		Version:          version,
		TTLLimit:         d.Params.TTLLimit,
		StatusUpdateTime: d.Params.StatusUpdateTime,
		IPCTimeout:       d.Params.IPCTimeout,
		MaxIdle:          d.Params.MaxIdle,
		Limits: store.Limits{
			Connections:    d.Params.SizeLimit,
			PerEndpoint:    d.Params.EndpointLimit,
			Bindings:       d.Params.BindingLimit,
			PerDestination: d.Params.DestinationLimit,
			Text:           d.Params.TextLimit,
		},
		ClientMemory: d.Params.ClientMemoryLimit,
		Quit:         d.Params.Quit,
		Policy:       rules,
		Mistake:      mistake,
		Parent:       d.Status.FD(),
		FirstClient:  d.Status.Announce,
		Watchdog:     watchdog,
	}
	if d.Params.LIFO {
		config.Order = store.NewestFirst
	}
	s, err := server.New(config, server.Cache{Listeners: d.Listeners})
	if err != nil {
		d.Log.Fatalf("%v", err)
	}
	var finished chan struct{}
	if d.Stdin {
		var client int
		client, finished, err = standardInput()
		if err == nil {
			err = s.Adopt(client)
		}
		if err != nil {
			d.Log.Fatalf("standard input: %v", err)
		}
	}
	end := &ender{}
	end.stopAtSignal(s)
	if err := s.Run(); err != nil {
		d.Log.Fatalf("%v", err)
	}
	if d.Stdin {
		signal.Reset(unix.SIGTERM, unix.SIGINT) // nothing is lost any longer
		waitForOutput(finished, end.asked.Load())
	}
}

// loadPolicy reads a file of rules, if there is one.
func loadPolicy(file string) (*policy.Policy, error) {
	if file == "" {
		return nil, nil
	}
	return policy.Load(file)
}

// ender makes SIGTERM and SIGINT end the server in good order. Until there is one, they end the
// process.
type ender struct {
	asked   atomic.Bool
	current atomic.Pointer[server.Server] // nil: there is none yet
}

// stopAtSignal says which server is to end. A signal that has come before ends this one, too.
func (e *ender) stopAtSignal(s *server.Server) {
	if e.current.Swap(s) == nil {
		e.listen()
	}
	if e.asked.Load() {
		s.Stop()
	}
}

func (e *ender) listen() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	go func() {
		for range signals {
			e.asked.Store(true)
			e.current.Load().Stop()
		}
	}()
}
