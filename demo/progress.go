package main

import (
	"fmt"
	"os"
)

// progress is a line that tells how far a round is: updated in place on a
// terminal, and a new one for each quarter of the mail elsewhere.
type progress struct {
	name     string
	terminal bool
	quarters int // shown so far
}

func newProgress(name string) *progress {
	info, err := os.Stdout.Stat()
	return &progress{name: name, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (p *progress) show(arrived, connections int) {
	line := fmt.Sprintf("%-10s  %5d of %d messages over %4d connections", p.name, arrived, messages, connections)
	if p.terminal {
		fmt.Print("\r" + line)
		return
	}
	if quarter := 4 * arrived / messages; quarter > p.quarters {
		p.quarters = quarter
		fmt.Println(line)
	}
}

func (p *progress) end() {
	if p.terminal {
		fmt.Println()
	}
}
