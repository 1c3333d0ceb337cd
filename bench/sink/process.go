package sink

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"
)

// childVariable makes a program that calls Main a sink.
const childVariable = "SCACHE_BENCH_SINK"

// Main turns this process into a sink, if it was started by Start; else it does
// nothing. It must come first in main, and in a test's TestMain.
func Main() {
	if os.Getenv(childVariable) == "" {
		return
	}
	// Ctrl-C is for our parent. If that dies, our standard input ends.
	signal.Ignore(os.Interrupt)
	var c counts
	err := serve(&c, func(address string) {
		fmt.Println(address)
		go report(&c)
	})
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// report writes the counts for each line that the parent writes, and ends the
// process with its standard input.
func report(c *counts) {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		now := c.read()
		fmt.Println(now.Opened, now.Closed, now.Messages)
	}
	os.Exit(0)
}

// Process is a sink in a process of its own.
type Process struct {
	Address netip.AddrPort

	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	mu      sync.Mutex // one question at a time
	closing atomic.Bool
	ended   chan struct{}
	err     error // valid when ended is closed
}

// Start starts this program again as a sink. If that stops by itself, before
// Close, failed is called.
func Start(failed func(error)) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.Command(self), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childVariable+"=1")
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// Not StdoutPipe, which Wait closes while an answer may be unread.
	out, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	p.cmd.Stdout = theirs
	err = p.cmd.Start()
	theirs.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("sink: %w", err)
	}
	go func() {
		defer out.Close()
		defer close(p.ended)
		p.err = p.cmd.Wait()
		if !p.closing.Load() {
			failed(fmt.Errorf("the sink has stopped by itself: %v", p.err))
		}
	}()
	line, err := p.out.ReadString('\n')
	if err == nil {
		p.Address, err = netip.ParseAddrPort(line[:len(line)-1])
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("sink: no address: %w", err)
	}
	return p, nil
}

// PID is the sink's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Counts asks for what the sink has seen.
func (p *Process) Counts() (c Counts, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err = io.WriteString(p.in, "\n"); err == nil {
		_, err = fmt.Fscanln(p.out, &c.Opened, &c.Closed, &c.Messages)
	}
	if err != nil {
		return c, fmt.Errorf("sink: no counts: %w", err)
	}
	return c, nil
}

// AwaitClosed waits until every connection is closed that was opened.
func (p *Process) AwaitClosed(limit time.Duration) (c Counts, err error) {
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		if c, err = p.Counts(); err != nil || c.Opened == c.Closed {
			return c, err
		}
		if time.Now().After(end) {
			return c, fmt.Errorf("%d connections were opened and %d closed", c.Opened, c.Closed)
		}
	}
}

// Close ends the sink, and all its connections.
func (p *Process) Close() {
	p.closing.Store(true)
	p.in.Close()
	p.cmd.Process.Kill() // it has nothing to put in order
	<-p.ended
}
