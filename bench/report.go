package main

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// remarks are what a person found out about the figures.
//
//go:embed remarks.md
var remarks string

// writeReport writes the results for people, and the pictures beside it.
func writeReport(r *Results, file string) error {
	if err := drawAll(r, filepath.Dir(file)); err != nil {
		return err
	}
	var b strings.Builder
	report(&b, r)
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

const preface = `# Results

Written by %s; do not edit. The remarks at the end come from bench/remarks.md.

%s

Every server is started as master(8) would start it, serves real clients that hand
over real TCP connections, and is measured in turn with the others, round by round.
Latencies, processor time (of the server process) and throughput are medians of the
rounds; ratios are taken round by round, and given as median (min to max). **stock**
is Postfix's own scache, **floor** a bare epoll server in C with fixed replies: what the
kernel alone costs, and for each save_dest one look at memory. **scache bare** is ours without
what was cached, bound or disturbing, in the same minutes, and **bare again** another one: what chance does.

## The goals

`

func report(w io.Writer, r *Results) {
	fmt.Fprintf(w, preface, "`"+r.Machine.Command+"`", r.Machine)
	markdown(w, []string{"workload", "goal", "measured", ""}, goalRows(r.Goals))
	fmt.Fprint(w, "\n## The scenarios\n")
	for _, o := range r.Outcomes {
		fmt.Fprintf(w, "\n**%v**\n\n", o.Scenario)
		var rows [][]string
		for i := range o.Standings {
			rows = append(rows, o.Standings[i].row())
		}
		markdown(w, headings, rows)
		for _, c := range o.Comparisons {
			fmt.Fprintf(w, "\n%v\n", c)
		}
	}
	fmt.Fprintf(w, "\n**memory and idleness**: %s cached connections, then %s idle clients; wake-ups in %v\n\n", grouped(memoryConnections), grouped(memoryClients), idleTime)
	var rows [][]string
	for i := range r.Memory {
		rows = append(rows, r.Memory[i].row())
	}
	markdown(w, memoryHeadings, rows)
	fmt.Fprint(w, "\n## Growth\n")
	for _, s := range r.Sweeps {
		fmt.Fprintf(w, "\n**%s, by the number of %s**\n\n", s.Title, s.Axis)
		for _, d := range drawings {
			fmt.Fprintf(w, "![%s](%s-%s.svg)\n", d.axis, s.Name, d.name)
		}
		fmt.Fprint(w, "\n```")
		writeSweepTable(w, s)
		fmt.Fprint(w, "```\n")
	}
	if r.Burst != nil {
		fmt.Fprintf(w, burstText, r.Burst)
		table := r.Burst.table()
		markdown(w, table[0], table[1:])
	}
	if r.TakeOvers != nil {
		fmt.Fprintf(w, takeOverText, r.TakeOvers)
		table := r.TakeOvers.table()
		markdown(w, table[0], table[1:])
	}
	fmt.Fprintf(w, "\n%s", remarks)
}

const takeOverText = `
## Take-over

%v.
What do the agents notice when another process takes the server's place (SIGHUP)? A pause is how long
nobody serves, by the servers' logs; a reply that fails, or a client that is disconnected, would have ended the run.

`

const burstText = `
## After a burst

%v.
How many connections are open at the receiver, those in the cache and the one in use?
With fifo, as with stock, the agent takes them all in turn, as long as it comes round within a time to
live: then none ever expires. With lifo (connection_cache_reuse_order) it uses those again that
it needs, and the others expire.

![connections open, by the time since the burst](burst.svg)

`

func goalRows(goals []Goal) (rows [][]string) {
	for _, g := range goals {
		rows = append(rows, []string{g.Workload, g.Goal, g.Measured, g.Verdict})
	}
	return rows
}

// markdown writes a table, numbers to the right.
func markdown(w io.Writer, head []string, rows [][]string) {
	columns := len(head)
	line := func(cells []string) {
		for len(cells) < columns {
			cells = append(cells, "")
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
	line(head)
	fmt.Fprintln(w, "|---"+strings.Repeat("|---", columns-1)+"|")
	for _, row := range rows {
		line(row)
	}
}
