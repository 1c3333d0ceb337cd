package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/scache/scache/client"
)

// flushable is what there is to flush.
var flushable = []string{client.All, client.Endpoint, client.Destination, client.Pattern}

func (a *app) flushCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "flush all | endpoint LABEL | destination LABEL | pattern GLOB",
		Short: "Drop cached connections, and what is bound to them",
		Long: `Flush closes cached connections:

  all                all of them, and drops all bindings
  endpoint LABEL     those of an endpoint
  destination LABEL  those of the endpoints that a destination is bound to, and the bindings
  pattern GLOB       those whose endpoint matches, and bindings of which a label does

Labels are as "scachectl list" prints them, with \n for the end of a line. In a
pattern * is any text, line ends included, and ? any one byte.`,
		Example: `  scachectl flush endpoint 'smtp\n192.0.2.1\n25\n0\n'
  scachectl flush pattern '*example.com*'`,
		ValidArgsFunction: a.completeFlush,
		Args: func(_ *cobra.Command, arguments []string) error {
			switch {
			case len(arguments) == 0 || !slices.Contains(flushable, arguments[0]):
				return fmt.Errorf("flush what? one of %s", strings.Join(flushable, ", "))
			case arguments[0] == client.All && len(arguments) > 1:
				return fmt.Errorf("flush all takes no label")
			case arguments[0] != client.All && len(arguments) != 2:
				return fmt.Errorf("flush %s takes one label or pattern", arguments[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, arguments []string) error {
			value := ""
			if len(arguments) > 1 {
				var err error
				if value, err = unescape(arguments[1]); err != nil {
					return err
				}
			}
			return a.ask(c.Context(), func(ctx context.Context, cache *client.Client) error {
				connections, bindings, err := cache.Flush(ctx, arguments[0], value)
				if err != nil {
					return err
				}
				if a.screen.json {
					return a.screen.printJSON(map[string]int64{"connections": connections, "bindings": bindings})
				}
				a.screen.printf("closed %s, dropped %s\n", plural(connections, "connection"), plural(bindings, "binding"))
				if connections+bindings == 0 && arguments[0] != client.All {
					a.screen.printf("labels are matched as a whole, as \"scachectl list\" prints them; flush pattern '*example.com*' matches a part\n")
				}
				return nil
			})
		},
	}
}

func (a *app) pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pause",
		Short: "Let nothing be found nor saved, until resume",
		Long: `Pause lets the cache answer as if it was empty, and keep nothing that is saved.
What is in it goes on expiring. It lasts until resume, or the end of the process.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.setPaused(c.Context(), (*client.Client).Pause, true, "paused: nothing is found nor saved until \"scachectl resume\"")
		},
	}
}

func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resume",
		Short: "End a pause",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.setPaused(c.Context(), (*client.Client).Resume, false, "caching")
		},
	}
}

func (a *app) setPaused(ctx context.Context, request func(*client.Client, context.Context) error, paused bool, text string) error {
	return a.ask(ctx, func(ctx context.Context, cache *client.Client) error {
		if err := request(cache, ctx); err != nil {
			return err
		}
		if a.screen.json {
			return a.screen.printJSON(map[string]bool{"paused": paused})
		}
		a.screen.printf("%s\n", text)
		return nil
	})
}

// limitPrefix is what all limits' names begin with, and may be left out.
const limitPrefix = "connection_cache_"

func (a *app) limitsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "limits [NAME=VALUE]...",
		Short: "Show the limits, or change some until the process ends",
		Long: `Limits shows the limits in force, by the names of the parameters of main.cf, and
changes those that are given. What a lower one leaves no room for is dropped. A
new process begins with what main.cf says. connection_cache_ may be left out.`,
		Example:           "  scachectl limits endpoint_limit=2 ttl_limit=1m",
		ValidArgsFunction: a.completeLimits,
		RunE: func(c *cobra.Command, arguments []string) error {
			changes, err := parseLimits(arguments)
			if err != nil {
				return err
			}
			return a.ask(c.Context(), func(ctx context.Context, cache *client.Client) error {
				limits, err := cache.Limits(ctx)
				if err != nil {
					return err
				}
				if err := checkLimits(changes, limits); err != nil { // before any is changed
					return err
				}
				for i, change := range changes {
					limits, err = cache.SetLimit(ctx, change.Name, change.Value)
					if err != nil && i > 0 {
						return fmt.Errorf("%w (what stands before %s is in force)", err, change.Name)
					}
					if err != nil {
						return err
					}
				}
				return a.printLimits(limits, len(changes) > 0)
			})
		},
	}
}

// parseLimits reads NAME=VALUE, where a time is 90 or 1m30s.
func parseLimits(arguments []string) (limits []client.Limit, err error) {
	for _, argument := range arguments {
		name, text, ok := strings.Cut(argument, "=")
		if !strings.HasPrefix(name, limitPrefix) {
			name = limitPrefix + name
		}
		limit := client.Limit{Name: name}
		limit.Value, err = strconv.ParseInt(text, 10, 64)
		if duration, e := time.ParseDuration(text); limit.IsTime() && e == nil && duration%time.Second == 0 {
			limit.Value, err = int64(duration/time.Second), nil
		}
		if !ok || err != nil {
			want := "a whole number"
			if limit.IsTime() {
				want = "whole seconds, such as 90, 90s or 5m"
			}
			return nil, fmt.Errorf("%s: want NAME=VALUE, %s: %w", argument, want, errUsage)
		}
		limits = append(limits, limit)
	}
	return limits, nil
}

// checkLimits refuses what no cache would take.
func checkLimits(changes, known []client.Limit) error {
	for _, change := range changes {
		switch {
		case !slices.ContainsFunc(known, func(l client.Limit) bool { return l.Name == change.Name }):
			return fmt.Errorf("there is no limit %s: %w", change.Name, errUsage)
		case change.Value < 0 || change.Value > math.MaxInt32:
			return fmt.Errorf("%s: %d is not from 0 to %d: %w", change.Name, change.Value, math.MaxInt32, errUsage)
		}
	}
	return nil
}

func (a *app) printLimits(limits []client.Limit, changed bool) error {
	if a.screen.json {
		object := map[string]int64{}
		for _, l := range limits {
			object[l.Name] = l.Value
		}
		return a.screen.printJSON(object)
	}
	var rows [][]string
	for _, l := range limits {
		value := number(l.Value)
		if l.IsTime() {
			value = (time.Duration(l.Value) * time.Second).String()
		}
		rows = append(rows, []string{l.Name, value})
	}
	a.screen.table([]string{"LIMIT", "VALUE"}, rows)
	if changed {
		a.screen.printf("\nin force until the process ends; main.cf, or the command line of \"scache serve\", has what a new one begins with\n")
	}
	return nil
}
