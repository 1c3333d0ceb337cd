package main

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// number has commas: 12,345.
func number(n int64) string { return humanize.Comma(n) }

// plural is a number of things: 1 connection, 12,345 connections.
func plural[N int | int64](n N, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return number(int64(n)) + " " + noun
}

// size is bytes: 1.2 MiB.
func size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) }

// percent is a share of a whole: 89%, or - of nothing.
func percent(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*float64(part)/float64(whole))
}

// span is a time to live or an age, in as many digits as it deserves: 850ms, 1.5s,
// 42s, 3m20s, 5h12m, 12d3h.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
