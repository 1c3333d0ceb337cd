package main

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/scache/scache/client"
)

// connectionEntry and bindingEntry are entries in JSON: times in milliseconds.
type connectionEntry struct {
	Endpoint  string `json:"endpoint"`
	Property  string `json:"property"`
	Age       int64  `json:"age_ms"`
	Remaining int64  `json:"remaining_ms"`
	Kind      string `json:"kind"`
	Remote    string `json:"remote"`
	Uses      int64  `json:"uses"`
}

type bindingEntry struct {
	Destination string `json:"destination"`
	Endpoint    string `json:"endpoint"`
	Property    string `json:"property"`
	Age         int64  `json:"age_ms"`
	Remaining   int64  `json:"remaining_ms"`
}

// listOptions are list's flags.
type listOptions struct {
	sort       string
	limit      int
	properties bool
}

func (a *app) listCommand() *cobra.Command {
	var o listOptions
	c := &cobra.Command{
		Use:   "list [connections|bindings]",
		Short: "List what is cached",
		Long: `List shows the connections in the cache, or which destinations are bound to which
endpoints. Labels are Postfix's: \n stands for the end of a line; flush takes
them as they are printed here.`,
		ValidArgs: []string{"connections", "bindings"},
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		RunE: func(c *cobra.Command, arguments []string) error {
			if !slices.Contains(orders, o.sort) {
				return fmt.Errorf("--sort %s: want one of %s: %w", o.sort, strings.Join(orders, ", "), errUsage)
			}
			if o.limit < 0 {
				return fmt.Errorf("--limit %d: must not be negative: %w", o.limit, errUsage)
			}
			path, err := a.path(c.Context())
			if err != nil {
				return err
			}
			return a.listenTo(c.Context(), path, func(ctx context.Context, cache *client.Client, heard func()) error {
				if len(arguments) > 0 && arguments[0] == "bindings" {
					return a.listBindings(cache.Bindings(ctx), heard, o)
				}
				return a.listConnections(cache.Connections(ctx), heard, o)
			})
		},
	}
	c.Flags().StringVar(&o.sort, "sort", "label", "by `what`: "+strings.Join(orders, ", "))
	c.Flags().IntVar(&o.limit, "limit", 0, "print the first `n` only; 0: all")
	c.Flags().BoolVar(&o.properties, "properties", false, "print the properties, too")
	c.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(orders, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// orders are what a list can be sorted by.
var orders = []string{"label", "age", "remaining"}

// entry is what is printed of a connection or a binding.
type entry struct {
	label          string
	age, remaining time.Duration
	row            []string
	object         []byte // JSON, in the place of row
}

// compare orders two entries, by label where they are the same otherwise.
func compare(order string, x, y *entry) int {
	byLabel := strings.Compare(x.label, y.label)
	switch order {
	case "age":
		return cmp.Or(-cmp.Compare(x.age, y.age), byLabel)
	case "remaining":
		return cmp.Or(cmp.Compare(x.remaining, y.remaining), byLabel)
	}
	return cmp.Or(byLabel, cmp.Compare(x.remaining, y.remaining))
}

func (a *app) listConnections(connections iter.Seq2[client.CachedConnection, error], heard func(), o listOptions) error {
	return list(a, connections, heard, o, "connection", []string{"AGE", "LEFT", "PUT BACK", "KIND", "REMOTE", "ENDPOINT"}, func(c client.CachedConnection) *entry {
		e := &entry{label: c.Endpoint, age: c.Age, remaining: c.Remaining}
		if a.screen.json {
			e.object = element(connectionEntry{c.Endpoint, c.Property, c.Age.Milliseconds(), c.Remaining.Milliseconds(), c.Kind, c.Remote, c.Uses})
			return e
		}
		e.row = []string{span(c.Age), span(c.Remaining), number(c.Uses), c.Kind, escape(c.Remote), escape(c.Endpoint)}
		if o.properties {
			e.row = append(e.row, escape(c.Property))
		}
		return e
	})
}

func (a *app) listBindings(bindings iter.Seq2[client.Binding, error], heard func(), o listOptions) error {
	return list(a, bindings, heard, o, "binding", []string{"AGE", "LEFT", "DESTINATION", "ENDPOINT"}, func(b client.Binding) *entry {
		e := &entry{label: b.Destination + "\x00" + b.Endpoint, age: b.Age, remaining: b.Remaining}
		if a.screen.json {
			e.object = element(bindingEntry{b.Destination, b.Endpoint, b.Property, b.Age.Milliseconds(), b.Remaining.Milliseconds()})
			return e
		}
		e.row = []string{span(b.Age), span(b.Remaining), escape(b.Destination), escape(b.Endpoint)}
		if o.properties {
			e.row = append(e.row, escape(b.Property))
		}
		return e
	})
}

// collectFrom is from how many entries on garbage is collected, as a rule. The collector would take
// what processors the delivery agents leave idle at the moment, and they would have to wait for
// them; a list of fewer entries takes less than 100 MB without it.
const collectFrom = 1 << 15

// list reads a whole list, calls heard with each of it, and prints it. What comes is made ready
// as it comes, so that no long burst of work is left for the end: on a machine with few processors
// the delivery agents would have to wait for it. For the same reason it has one processor: each time
// something comes, Go's scheduler would keep a second one busy for a moment to look for more.
func list[T any](a *app, all iter.Seq2[T, error], heard func(), o listOptions, noun string, header []string, prepare func(T) *entry) error {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	asBefore := debug.SetGCPercent(-1)
	defer debug.SetGCPercent(asBefore)
	var entries []*entry
	for each, err := range all {
		if err != nil {
			return err
		}
		heard()
		if len(entries) == collectFrom {
			debug.SetGCPercent(asBefore)
		}
		entries = append(entries, prepare(each))
	}
	slices.SortFunc(entries, func(x, y *entry) int { return compare(o.sort, x, y) })
	length := len(entries)
	if o.limit > 0 {
		entries = entries[:min(o.limit, length)]
	}
	if a.screen.json {
		objects := make([][]byte, len(entries))
		for i, e := range entries {
			objects[i] = e.object
		}
		a.screen.printArray(objects)
		return nil
	}
	if o.properties {
		header = append(header, "PROPERTY")
	}
	if length > 0 {
		rows := make([][]string, len(entries))
		for i, e := range entries {
			rows[i] = e.row
		}
		a.screen.table(header, rows)
		a.screen.printf("\n")
	}
	text := plural(length, noun)
	if len(entries) < length {
		text = fmt.Sprintf("%s of %s", number(int64(len(entries))), text)
	}
	a.screen.printf("%s\n", text)
	return nil
}
