package main

import (
	"cmp"
	"context"
	"fmt"
	"iter"
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

// compare orders two entries, by label where they are the same otherwise.
func compare(order string, age, remaining [2]time.Duration, labels [2]string) int {
	byLabel := strings.Compare(labels[0], labels[1])
	switch order {
	case "age":
		return cmp.Or(-cmp.Compare(age[0], age[1]), byLabel)
	case "remaining":
		return cmp.Or(cmp.Compare(remaining[0], remaining[1]), byLabel)
	}
	return cmp.Or(byLabel, cmp.Compare(remaining[0], remaining[1]))
}

// collect reads a whole list, and calls heard with each entry; all is how long it was before the limit.
func collect[T any](entries iter.Seq2[T, error], heard func(), o listOptions, compare func(a, b T) int) (list []T, all int, err error) {
	list = []T{}
	for entry, err := range entries {
		if err != nil {
			return nil, 0, err
		}
		heard()
		list = append(list, entry)
	}
	slices.SortFunc(list, compare)
	all = len(list)
	if o.limit > 0 {
		list = list[:min(o.limit, all)]
	}
	return list, all, nil
}

func (a *app) listConnections(entries iter.Seq2[client.CachedConnection, error], heard func(), o listOptions) error {
	list, all, err := collect(entries, heard, o, func(x, y client.CachedConnection) int {
		return compare(o.sort, [2]time.Duration{x.Age, y.Age}, [2]time.Duration{x.Remaining, y.Remaining}, [2]string{x.Endpoint, y.Endpoint})
	})
	if err != nil {
		return err
	}
	objects, rows := []connectionEntry{}, [][]string{}
	for _, e := range list {
		objects = append(objects, connectionEntry{e.Endpoint, e.Property, e.Age.Milliseconds(), e.Remaining.Milliseconds(), e.Kind, e.Remote, e.Uses})
		row := []string{span(e.Age), span(e.Remaining), number(e.Uses), e.Kind, e.Remote, escape(e.Endpoint)}
		if o.properties {
			row = append(row, escape(e.Property))
		}
		rows = append(rows, row)
	}
	return a.printList(objects, []string{"AGE", "LEFT", "PUT BACK", "KIND", "REMOTE", "ENDPOINT"}, rows, "connection", all, o)
}

func (a *app) listBindings(entries iter.Seq2[client.Binding, error], heard func(), o listOptions) error {
	list, all, err := collect(entries, heard, o, func(x, y client.Binding) int {
		return compare(o.sort, [2]time.Duration{x.Age, y.Age}, [2]time.Duration{x.Remaining, y.Remaining},
			[2]string{x.Destination + "\x00" + x.Endpoint, y.Destination + "\x00" + y.Endpoint})
	})
	if err != nil {
		return err
	}
	objects, rows := []bindingEntry{}, [][]string{}
	for _, e := range list {
		objects = append(objects, bindingEntry{e.Destination, e.Endpoint, e.Property, e.Age.Milliseconds(), e.Remaining.Milliseconds()})
		row := []string{span(e.Age), span(e.Remaining), escape(e.Destination), escape(e.Endpoint)}
		if o.properties {
			row = append(row, escape(e.Property))
		}
		rows = append(rows, row)
	}
	return a.printList(objects, []string{"AGE", "LEFT", "DESTINATION", "ENDPOINT"}, rows, "binding", all, o)
}

// printList prints a list of which there are some of all.
func (a *app) printList(objects any, header []string, rows [][]string, noun string, all int, o listOptions) error {
	if a.screen.json {
		return a.screen.printJSON(objects)
	}
	if o.properties {
		header = append(header, "PROPERTY")
	}
	if len(rows) > 0 {
		a.screen.table(header, rows)
		a.screen.printf("\n")
	}
	text := plural(all, noun)
	if len(rows) < all {
		text = fmt.Sprintf("%s of %s", number(int64(len(rows))), text)
	}
	a.screen.printf("%s\n", text)
	return nil
}
