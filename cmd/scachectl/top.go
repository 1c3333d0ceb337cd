package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/spf13/cobra"

	"github.com/scache/scache/client"
	"github.com/scache/scache/cmd/scachectl/socket"
)

func (a *app) topCommand() *cobra.Command {
	interval := time.Second
	count := 0
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch the cache live",
		Long: `Top shows rates, the hit ratio, how long requests take, why connections leave the
cache, and the busiest destinations. With --json it prints a line of JSON for
each interval.

Keys: the letters in the table's head sort by that column, < and > by the next
one, r reverses, up and down scroll, space stops the display, q quits.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := a.path(c.Context())
			if err != nil {
				return err
			}
			if interval < 100*time.Millisecond {
				return fmt.Errorf("--interval %v: at least 100ms: %w", interval, errUsage)
			}
			if count < 0 {
				return fmt.Errorf("--count %d: must not be negative: %w", count, errUsage)
			}
			// It is open until the process ends: a question may be under way then.
			f := &feed{path: path, timeout: a.timeout}
			// What is wrong from the start is told as other commands do.
			first, err := f.read(c.Context())
			if err != nil {
				return err
			}
			if a.screen.json {
				return a.streamRates(c.Context(), f, first, interval, count)
			}
			return a.watch(f, first, interval)
		},
	}
	c.Flags().Var((*duration)(&interval), "interval", "how often to ask")
	c.Flags().IntVar(&count, "count", 0, "with --json: how many lines to print; 0: until interrupted")
	return c
}

// feed is a connection to a cache that may come and go. One goroutine at a time uses
// it.
type feed struct {
	path    string
	timeout time.Duration
	cache   *client.Client // nil: not connected
}

// read takes a sample, and connects first where it is not. After an error it is not.
func (f *feed) read(ctx context.Context) (s sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	if f.cache == nil {
		if f.cache, err = socket.Dial(ctx, f.path); err != nil {
			return s, err
		}
	}
	if s.statistics, err = f.cache.Statistics(ctx); err == nil {
		for entry, e := range f.cache.Destinations(ctx) {
			if err = e; err == nil {
				s.destinations = append(s.destinations, entry)
			}
		}
	}
	if err != nil {
		f.close()
		return s, socket.Explain(f.path, err)
	}
	return s, nil
}

func (f *feed) close() {
	if f.cache != nil {
		f.cache.Close()
		f.cache = nil
	}
}

// streamRates prints the rates of each interval as a line of JSON.
func (a *app) streamRates(ctx context.Context, f *feed, last sample, interval time.Duration, count int) error {
	encoder := json.NewEncoder(a.screen.out)
	for printed := 0; count == 0 || printed < count; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
		now, err := f.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if r, ok := ratesBetween(last.statistics, now.statistics); ok {
			if err := encoder.Encode(r); err != nil {
				return err
			}
			printed++
		}
		last = now
	}
	return nil
}

// watch is the live screen.
func (a *app) watch(f *feed, first sample, interval time.Duration) error {
	if a.screen.width == 0 {
		return fmt.Errorf("top needs a terminal; with --json it prints lines: %w", errUsage)
	}
	m := &top{screen: a.screen, feed: f, interval: interval, now: first, sortBy: sortAtFirst}
	// The program ends on SIGTERM and SIGINT by itself, and puts the terminal in order.
	_, err := tea.NewProgram(m, tea.WithAltScreen(), tea.WithOutput(a.screen.out)).Run()
	if errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}
