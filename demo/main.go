// The demo shows what the cache is for: it sends the same mail through a real
// Postfix twice, without and with connection caching, and counts what
// arrives at the receivers. All of it is on this machine's loopback.
//
//	go run ./demo
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/scache/scache/internal/lab"
)

const (
	messages  = 3000
	receivers = 3
	sessions  = 2 // of smtp-source, for each destination

	// greeting is the one artificial thing: on loopback a connection costs
	// nothing, on the Internet several round trips.
	greeting = 50 * time.Millisecond
)

// Each receiver is reached under two names, so the cache has twice as many
// destinations as endpoints.
var hosts = []string{"127.0.0.1", "localhost"}

const destinations = receivers * 2

func main() {
	binary := flag.String("scache", "", "show this scache instead of building ours")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unexpected argument: %s\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(ctx, *binary)
	switch {
	case ctx.Err() != nil:
		fmt.Println("\ninterrupted; everything is cleaned up")
		os.Exit(130)
	case errors.Is(err, lab.ErrNotInstalled):
		fmt.Fprintf(os.Stderr, "%v\n`make test` installs Debian's package.\n", err)
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string) error {
	version, err := lab.PostfixVersion()
	if err != nil {
		return err
	}
	if binary == "" {
		fmt.Println("Building scache.")
		dir, err := os.MkdirTemp("", "scache-demo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if binary, err = lab.Build(ctx, dir); err != nil {
			return err
		}
	}
	fmt.Printf("Postfix %s delivers %d messages to %d destinations on %d receivers,\n"+
		"all on this machine. Real: Postfix, smtp-source(1), the cache. Artificial: the\n"+
		"receivers throw the mail away, and wait %v before they greet a new\n"+
		"connection, in place of the way there.\n\n", version, messages, destinations, receivers, greeting)

	off, err := measure(ctx, "cache off", binary, nil)
	if err != nil {
		return err
	}
	on, err := measure(ctx, "cache on", binary, map[string]string{
		"smtp_connection_cache_destinations": "127.0.0.1, localhost",
	})
	if err != nil {
		return err
	}
	printTable(off, on)
	printStatistics(on)
	return nil
}

// result is what one round of mail took.
type result struct {
	name        string
	messages    int
	connections int
	elapsed     time.Duration // first message handed to Postfix until the last one at a receiver
	statistics  []string      // the cache's own, from the mail log
}

// measure sends the mail through an instance of its own.
func measure(ctx context.Context, name, binary string, params map[string]string) (result, error) {
	sinks, closeSinks, err := startSinks()
	if err != nil {
		return result{}, err
	}
	defer closeSinks()
	routes := routesTo(sinks)
	l, err := lab.New(lab.Config{Scache: binary, Chroot: true, Main: params, Routes: routes})
	if err != nil {
		return result{}, err
	}
	defer l.Close()
	if err := l.Start(ctx); err != nil {
		return result{}, err
	}

	begun := time.Now()
	sent := make(chan error, len(routes))
	for domain := range routes {
		go func() {
			sent <- l.Send(ctx, lab.Load{Domain: domain, Messages: messages / destinations, Sessions: sessions})
		}()
	}
	if err := follow(ctx, name, sinks, sent); err != nil {
		return result{}, err
	}
	r := result{name: name, elapsed: time.Since(begun)}
	r.messages, r.connections = totals(sinks)
	r.statistics, err = report(ctx, l, params != nil)
	return r, err
}

func startSinks() (sinks []*lab.Sink, closeAll func(), err error) {
	closeAll = func() {
		for _, s := range sinks {
			s.Close()
		}
	}
	for range receivers {
		s, err := lab.NewSink(lab.SinkConfig{Greeting: greeting})
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		sinks = append(sinks, s)
	}
	return sinks, closeAll, nil
}

func routesTo(sinks []*lab.Sink) map[string]string {
	routes := map[string]string{}
	for i, s := range sinks {
		for j, host := range hosts {
			routes[fmt.Sprintf("d%d%d.test", i, j)] = fmt.Sprintf("[%s]:%d", host, s.Port())
		}
	}
	return routes
}

func totals(sinks []*lab.Sink) (messages, connections int) {
	for _, s := range sinks {
		c := s.Counts()
		messages += c.Messages
		connections += c.Sessions
	}
	return messages, connections
}

// patience is how long to wait for all mail to arrive, and for statistics.
const patience = 3 * time.Minute

// follow shows the progress until all mail has arrived, a sender fails, or it takes too long.
func follow(ctx context.Context, name string, sinks []*lab.Sink, sent <-chan error) error {
	p := newProgress(name)
	defer p.end()
	for began := time.Now(); ; {
		arrived, connections := totals(sinks)
		p.show(arrived, connections)
		if arrived >= messages {
			return nil
		}
		if time.Since(began) > patience {
			return fmt.Errorf("%s: after %v %d of %d messages have not arrived", name, patience, messages-arrived, messages)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-sent:
			if err != nil {
				return err
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
}

var maxima = regexp.MustCompile(`statistics: max simultaneous`)

// report has the cache log its statistics, which it does when it leaves.
func report(ctx context.Context, l *lab.Lab, cached bool) ([]string, error) {
	if !cached {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := l.Reload(ctx); err != nil {
		return nil, err
	}
	if err := l.WaitLog(ctx, maxima); err != nil {
		return nil, err
	}
	return l.LogLines(regexp.MustCompile(`/scache\[\d+\]: statistics: `)), nil
}

func printTable(results ...result) {
	fmt.Printf("\n%-10s  %10s  %18s  %23s  %8s\n", "", "messages", "SMTP connections", "messages per connection", "time")
	for _, r := range results {
		fmt.Printf("%-10s  %10d  %18d  %23.1f  %6.1f s\n",
			r.name, r.messages, r.connections, float64(r.messages)/float64(r.connections), r.elapsed.Seconds())
	}
	fmt.Print("\nConnections are counted by the receivers; the time is from the first message handed to\n" +
		"Postfix until the last one has arrived.\n")
}

func printStatistics(r result) {
	fmt.Print("\nThe cache's own statistics, from the mail log:\n\n")
	for _, line := range r.statistics {
		fmt.Println("  " + line)
	}
}
