package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/scache/scache/client"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the cache does, since its start",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.ask(c.Context(), func(ctx context.Context, cache *client.Client) error {
				statistics, err := cache.Statistics(ctx)
				if err != nil {
					return err
				}
				if a.screen.json {
					return a.screen.printJSON(flat(statistics))
				}
				a.printStatus(statistics)
				return nil
			})
		},
	}
}

// flat are the statistics as one object.
func flat(s client.Statistics) map[string]any {
	object := map[string]any{"version": s.Version, "cache": s.Cache}
	for name, value := range s.Values {
		object[name] = value
	}
	return object
}

func (a *app) printStatus(statistics client.Statistics) {
	s, v := &a.screen, statistics.Values
	state := s.good.Render("caching")
	if v["paused"] != 0 {
		state = s.warning.Render("paused")
	}
	name := statistics.Cache
	if name != "" {
		name = " " + name
	}
	s.printf("scache %s%s, up %s, %s\n\n", statistics.Version, name, span(time.Duration(v["uptime_ms"])*time.Millisecond), state)
	s.table([]string{"LOOK-UPS", "HITS", "MISSES", "SUCCESS"}, [][]string{
		lookups("by destination", v["destination_hits"], v["destination_misses"]),
		lookups("by endpoint", v["endpoint_hits"], v["endpoint_misses"]),
	})
	s.printf("\n")
	s.table([]string{"NOW", "COUNT", "PEAK", "OF"}, [][]string{
		{"connections", number(v["connections"]), number(v["connections_peak"]), number(v["connection_limit"])},
		{"clients", number(v["clients"]), number(v["clients_peak"]), ""},
		{"bindings", number(v["bindings"]), "", ""},
		{"endpoints", number(v["endpoints"]), "", ""},
		{"destinations", number(v["destinations"]), "", ""},
		{"open files", number(v["descriptors"]), "", number(v["descriptor_limit"])},
		{"labels and properties", size(v["text_bytes"]), "", ""},
		{"kept for clients", size(v["client_memory_bytes"]), "", ""},
	})
	s.printf("\n")
	var rows [][]string
	for _, name := range reasons {
		if n := v["closed_"+name]; n > 0 {
			rows = append(rows, []string{strings.ReplaceAll(name, "_", " "), number(n), percent(n, v["connections_saved"])})
		}
	}
	s.table([]string{"SAVED, AND LEFT", number(v["connections_saved"]), ""}, rows)
	times := requestTimesOf(statistics)
	s.printf("\nrequests %s: mean %v, half %s, 99%% %s; longest turn %v\n", number(v["requests"]), times.mean(),
		times.quantileText(0.5), times.quantileText(0.99), time.Duration(v["longest_turn_us"])*time.Microsecond)
	a.printOddities(v)
}

// reasons are why connections leave the cache, each as the end of a statistic's name.
var reasons = []string{"taken", "expired", "evicted", "hung_up", "unsolicited", "flushed", "client_gone", "shutdown"}

func lookups(kind string, hits, misses int64) []string {
	return []string{kind, number(hits), number(misses), percent(hits, hits+misses)}
}

// oddities are statistics that are zero as long as everything is kept and nothing is
// amiss, and what they count, with the noun apart.
var oddities = []struct{ name, noun, text string }{
	{"connections_declined", "connection", "not kept: the policy says cache=no"},
	{"connections_ignored", "connection", "not kept: the cache was paused"},
	{"ttl_lowered", "save", "with the time to live lowered to connection_cache_ttl_limit"},
	{"saves_refused", "save", "without room for the texts"},
	{"bindings_displaced", "binding", "dropped to make room"},
	{"descriptors_lost", "descriptor", "lost for want of room"},
	{"clients_delayed", "client", "not accepted at once"},
	{"handovers_delayed", "hand-over", "that waited for the kernel"},
	{"clients_disconnected", "client", "disconnected for the memory taken"},
	{"admin_denied", "admin request", "refused"},
	{"log_lines_lost", "line", "that the log did not take"},
	{"warnings_suppressed", "warning", "not logged"},
}

func (a *app) printOddities(values map[string]int64) {
	var told []string
	for _, o := range oddities {
		if n := values[o.name]; n > 0 {
			told = append(told, plural(n, o.noun)+" "+o.text)
		}
	}
	for _, text := range told {
		a.screen.printf("%s\n", a.screen.warning.Render(text))
	}
}
