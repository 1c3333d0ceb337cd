package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// headings of the table of a scenario.
var headings = []string{"", "ops/s", "min", "max", "p50", "p99", "p99.9", "longest", "CPU/op", "calls/op", "RSS"}

// row is a server's line: medians of its rounds.
func (s *Standing) row() []string {
	if s.Note != "" {
		return []string{s.Server, s.Note}
	}
	of := func(what func(Sample) float64) spread {
		var values []float64
		for _, sample := range s.Samples {
			values = append(values, what(sample))
		}
		return spreadOf(values)
	}
	rate := of(throughput)
	calls := "-"
	if s.Calls.known() {
		calls = fmt.Sprintf("%.1f", float64(s.Calls))
	}
	return []string{
		s.Server,
		short(float64(rate.Median)), short(float64(rate.Min)), short(float64(rate.Max)),
		s.duration(of(p50)), s.duration(of(p99)), s.duration(of(p999)), s.duration(of(longest)),
		microText(of(cpu).Median), calls, bytesText(s.Resident),
	}
}

// stalled is how many clients had no answer in any of the rounds.
func (s *Standing) stalled() (n int) {
	for _, sample := range s.Samples {
		n = max(n, sample.Stalled)
	}
	return n
}

// unstarted is how many operations were due in one of the rounds and could not begin.
func (s *Standing) unstarted() (n int) {
	for _, sample := range s.Samples {
		n = max(n, int(sample.Unstarted))
	}
	return n
}

// duration is a latency as text; what did not come to its end took longer.
func (s *Standing) duration(latency spread) string {
	if s.stalled() > 0 {
		return ">" + microText(latency.Median)
	}
	return microText(latency.Median)
}

// writeOutcome prints a scenario's table and the ratios.
func writeOutcome(w io.Writer, o *Outcome) {
	fmt.Fprintf(w, "\n%v\n", o.Scenario)
	rows := [][]string{headings}
	for i := range o.Standings {
		rows = append(rows, o.Standings[i].row())
	}
	writeColumns(w, rows)
	for i := range o.Standings {
		if n := o.Standings[i].stalled(); n > 0 {
			fmt.Fprintf(w, "  %s left %s without an answer\n", o.Standings[i].Server, count(n, "client", "clients"))
		}
		if n := o.Standings[i].unstarted(); n > 0 {
			fmt.Fprintf(w, "  %s was too slow for the rate: for %s there was never a free client\n", o.Standings[i].Server, count(n, "operation", "operations"))
		}
	}
	for _, c := range o.Comparisons {
		fmt.Fprintf(w, "  %v\n", c)
	}
}

func ratioText(s spread) string {
	if !s.Median.known() {
		return "-"
	}
	return fmt.Sprintf("x %s (%s to %s)", short(float64(s.Median)), short(float64(s.Min)), short(float64(s.Max)))
}

// writeColumns aligns: the first column to the left, the others to the right. A row
// of two is a name and a remark.
func writeColumns(w io.Writer, rows [][]string) {
	width := map[int]int{}
	for _, row := range rows {
		for i, cell := range row {
			if len(row) != 2 || i == 0 {
				width[i] = max(width[i], len([]rune(cell)))
			}
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			switch {
			case i == 0:
				fmt.Fprintf(&line, "  %-*s", width[i], cell)
			case len(row) == 2:
				line.WriteString("   " + cell)
			default:
				fmt.Fprintf(&line, "  %*s", width[i], cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// short writes a number with three digits, or all before the point.
func short(x float64) string {
	switch {
	case !figure(x).known():
		return "-"
	case x >= 1000:
		return grouped(int(x + 0.5))
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	case x >= 0.1 || x == 0:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.4f", x)
}

// microText writes microseconds with their unit.
func microText(x figure) string {
	switch {
	case !x.known():
		return "-"
	case x >= 1e6:
		return short(float64(x)/1e6) + "s"
	case x >= 1000:
		return short(float64(x)/1000) + "ms"
	}
	return short(float64(x)) + "us"
}

func bytesText(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fMB", float64(n)/1e6)
}

func appendFloat(dst []byte, x float64) []byte { return strconv.AppendFloat(dst, x, 'g', 6, 64) }
