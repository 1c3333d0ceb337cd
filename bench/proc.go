package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/scache/scache/internal/master"
)

// cpuTime is the processor time that a server has used, to the nanosecond where
// the kernel keeps scheduler statistics, else to the hundredth of a second. Threads
// that have ended are not in the former: ours and stock's do not end.
func cpuTime(d *master.Daemon) (time.Duration, error) {
	total := int64(0)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", d.PID))
	if err != nil || len(tasks) == 0 {
		return d.CPU()
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		running, _, ok := strings.Cut(string(text), " ")
		n, e := strconv.ParseInt(running, 10, 64)
		if err != nil || !ok || e != nil {
			return d.CPU()
		}
		total += n
	}
	return time.Duration(total), nil
}

// resident is a server's resident memory in bytes. What statm says lags behind by
// some pages for each processor.
func resident(d *master.Daemon) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", d.PID))
	if kilobytes, ok := field(string(text), "Rss:"); err == nil && ok {
		return kilobytes << 10, nil
	}
	return d.RSS()
}

// wakeUps counts how often a server's threads have been switched to.
func wakeUps(d *master.Daemon) (int64, error) {
	total := int64(0)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.PID))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("server %d is gone", d.PID)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that has ended
		}
		for _, name := range []string{"voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"} {
			n, ok := field(string(text), name)
			if !ok {
				return 0, fmt.Errorf("%s: no %s", task, name)
			}
			total += n
		}
	}
	return total, nil
}

// field finds the number in a line "name: number ...".
func field(text, name string) (int64, bool) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) >= 2 && words[0] == name {
			n, err := strconv.ParseInt(words[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
