package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errNoTracer says that there is nothing here to count system calls with.
var errNoTracer = errors.New("neither perf nor strace can count system calls here")

// countCalls counts the system calls of a process while work is done: with perf,
// which hardly slows the process down, or else strace, which does.
func countCalls(pid int, work func() error) (calls int64, err error) {
	calls, err = countWithPerf(pid, work)
	if errors.Is(err, errNoTracer) {
		calls, err = countWithStrace(pid, work)
	}
	return calls, err
}

func countWithPerf(pid int, work func() error) (int64, error) {
	// perf counts while its command runs; this one says when it does.
	cmd := exec.Command("perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", strconv.Itoa(pid), "--", "cat")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	var report strings.Builder
	cmd.Stderr = &report
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return 0, errNoTracer
	}
	defer cmd.Wait()
	defer in.Close()
	io.WriteString(in, "\n")
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return 0, errNoTracer
	}
	if err := work(); err != nil {
		return 0, err
	}
	in.Close()
	cmd.Wait()
	count, _, _ := strings.Cut(strings.TrimSpace(report.String()), ",")
	calls, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		return 0, errNoTracer // "<not supported>"
	}
	return calls, nil
}

func countWithStrace(pid int, work func() error) (int64, error) {
	cmd := exec.Command("strace", "-c", "-f", "-p", strconv.Itoa(pid))
	stderr, err := cmd.StderrPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		return 0, errNoTracer
	}
	defer cmd.Wait()
	report := bufio.NewReader(stderr)
	if line, _ := report.ReadString('\n'); !strings.Contains(line, "attached") {
		return 0, errNoTracer
	}
	time.Sleep(50 * time.Millisecond) // for the other threads
	workErr := work()
	cmd.Process.Signal(unix.SIGINT)
	rest, err := io.ReadAll(report)
	if err := errors.Join(workErr, err); err != nil {
		return 0, err
	}
	return parseStrace(string(rest))
}

// parseStrace finds the number that stands under "calls" in the line of totals.
func parseStrace(text string) (int64, error) {
	const heading = " calls"
	end := 0
	for line := range strings.Lines(text) {
		if at := strings.Index(line, heading); at > 0 {
			end = at + len(heading)
		}
		if end > 0 && len(line) > end && strings.HasSuffix(strings.TrimSpace(line), " total") {
			words := strings.Fields(line[:end])
			return strconv.ParseInt(words[len(words)-1], 10, 64)
		}
	}
	return 0, fmt.Errorf("strace gave no total: %q", text)
}
