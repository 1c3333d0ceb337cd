package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/x/ansi"

	"github.com/scache/scache/client"
)

// View draws the whole screen, no line wider and not more of them than there is room
// for.
func (t *top) View() string {
	if t.width == 0 {
		return ""
	}
	lines := append(t.head(), t.table(t.height-headLines-1)...)
	for len(lines) < t.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:max(0, t.height-1)], t.foot())
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, t.width, "")
	}
	return strings.Join(lines, "\n")
}

// headLines is how many lines head returns.
const headLines = 8

func (t *top) head() []string {
	s, v := &t.screen, t.now.statistics.Values
	state := s.good.Render("caching")
	switch {
	case t.trouble != nil:
		state = s.bad.Render("LOST, reconnecting")
	case v["paused"] != 0:
		state = s.warning.Render("PAUSED")
	}
	return []string{
		fmt.Sprintf("%s %s  %s  up %s  %s", s.bold.Render("scache"), t.now.statistics.Version, escape(t.feed.path), span(time.Duration(v["uptime_ms"])*time.Millisecond), state),
		"",
		t.row("look-ups", t.rate(t.rates.Lookups), "found", t.ratio(), "saves", t.rate(t.rates.Saves), "requests", t.rate(t.rates.Requests)),
		t.row("latency", t.mean(), "half", t.quantile(0.5), "99%", t.quantile(0.99), "longest", (time.Duration(v["longest_turn_us"]) * time.Microsecond).String()),
		t.row("cached", number(v["connections"]), "of", number(v["connection_limit"]), "endpoints", number(v["endpoints"]), "clients", number(v["clients"])),
		t.closed(),
		s.dim.Render(fmt.Sprintf("%-*s", labelWidth, "hit ratio")) + " " + bars(t.ratios, t.width-labelWidth-1),
		"",
	}
}

// labelWidth is that of a name in the head, and of a value: four of each are 80
// columns.
const labelWidth = 9

// row is pairs of a name and a value, each in its place.
func (t *top) row(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString(t.screen.dim.Render(fmt.Sprintf("%-*s", labelWidth, pairs[i])) + fmt.Sprintf(" %-*s ", labelWidth, pairs[i+1]))
	}
	return b.String()
}

func (t *top) rate(perSecond float64) string {
	if !t.measured {
		return "-"
	}
	return number(int64(perSecond+0.5)) + "/s"
}

func (t *top) ratio() string {
	if ratio, ok := t.rates.hitRatio(); ok {
		return fmt.Sprintf("%.0f%%", 100*ratio)
	}
	return "-"
}

func (t *top) mean() string {
	if !t.measured || t.rates.times.count() == 0 {
		return "-"
	}
	return t.rates.times.mean().String()
}

func (t *top) quantile(q float64) string {
	if !t.measured {
		return "-"
	}
	return t.rates.times.quantileText(q)
}

// closed is why connections left the cache, by rate; a reason that never was is left
// out.
func (t *top) closed() string {
	s := &t.screen
	parts := []string{s.dim.Render(fmt.Sprintf("%-*s", labelWidth, "left"))}
	for _, reason := range reasons {
		if t.now.statistics.Values["closed_"+reason] > 0 {
			parts = append(parts, strings.ReplaceAll(reason, "_", " ")+" "+t.rate(t.rates.Closed[reason])+" ")
		}
	}
	return strings.Join(parts, " ")
}

// bars draws the last of some ratios as high as they are.
func bars(ratios []float64, width int) string {
	const levels = "▁▂▃▄▅▆▇█"
	ratios = ratios[max(0, len(ratios)-max(0, width)):]
	var b strings.Builder
	for _, ratio := range ratios {
		if ratio < 0 {
			b.WriteByte(' ')
			continue
		}
		level := []rune(levels)
		b.WriteRune(level[min(len(level)-1, int(ratio*float64(len(level))))])
	}
	return b.String()
}

// numberWidth is that of the columns behind the name, which has the rest.
const numberWidth = 11

// table is the destinations, in so many lines with its head.
func (t *top) table(height int) []string {
	nameWidth := max(20, t.width-numberWidth*(len(columns)-1))
	lines := []string{t.titles(nameWidth)}
	list := sorted(t.now.destinations, t.sortBy, t.reverse)
	for _, d := range list[min(t.offset, len(list)):] {
		if len(lines) >= height {
			break
		}
		lines = append(lines, destinationRow(d, nameWidth))
	}
	return lines
}

func (t *top) titles(nameWidth int) string {
	var b strings.Builder
	for i, c := range columns {
		title := c.title
		if i == t.sortBy {
			arrow := "▼"
			if t.reverse != (i == 0) {
				arrow = "▲"
			}
			title += arrow
		}
		layout := t.screen.bold
		if i == t.sortBy {
			layout = t.screen.bold.Reverse(true)
		}
		padding := strings.Repeat(" ", max(0, numberWidth-lipgloss.Width(title)))
		if i == 0 {
			b.WriteString(layout.Render(title) + strings.Repeat(" ", max(0, nameWidth-lipgloss.Width(title))))
			continue
		}
		b.WriteString(padding + layout.Render(title))
	}
	return b.String()
}

func destinationRow(d client.DestinationActivity, nameWidth int) string {
	name := ansi.Truncate(escape(d.Destination), nameWidth-1, "…")
	ratio := "-"
	if recent(d) > 0 {
		ratio = fmt.Sprintf("%.0f%%", 100*share(d))
	}
	return fmt.Sprintf("%s%s%*d%*d%*.0f%*.0f%*s", name, strings.Repeat(" ", nameWidth-lipgloss.Width(name)),
		numberWidth, d.Connections, numberWidth, d.Bindings, numberWidth, recent(d), numberWidth, d.Misses, numberWidth, ratio)
}

// foot is the last line: what is wrong, or the keys, which are the first letters of
// what they sort by.
func (t *top) foot() string {
	if t.trouble != nil {
		return t.screen.bad.Render(escape(t.trouble.Error()))
	}
	if t.frozen {
		return t.screen.warning.Render("stopped: space goes on")
	}
	return t.screen.dim.Render("q quit  space stop  r reverse  sort: Name Cached Endpoints Look-ups Misses Hit ratio")
}
