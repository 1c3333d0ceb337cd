package protocol

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Hostile clients may do to themselves what they like. Nobody else notices: the
// daemon does not crash, leak, spin or stall, and its memory is bounded. What
// they do is in the files hostile_*_test.go; what is common to all is here.

// besieged runs an attack that is to leave nothing behind. While it lasts it is
// for the attack to have the neighbour served.
func (d *daemon) besieged(attack func(n *neighbour)) {
	d.t.Helper()
	before := d.settled()
	n := d.neighbour()
	n.served()
	attack(n)
	n.served()
	n.c.close()
	d.wantFDs(before)
	d.wantQuiet()
}

// A neighbour is a well-behaved client, with a connection of its own.
type neighbour struct {
	c      *client
	p      *pair
	rounds int
}

func (d *daemon) neighbour() *neighbour {
	d.t.Helper()
	return &neighbour{c: d.dial(), p: newPair(d.t)}
}

// served goes through every kind of request.
func (n *neighbour) served() {
	n.c.t.Helper()
	n.rounds++
	destination, endpoint := fmt.Sprint("neighbour's ", n.rounds), fmt.Sprint("neighbour's at ", n.rounds)
	n.c.inStep()
	n.c.bind("100", destination, "DP", endpoint)
	n.c.save("100", endpoint, "EP", n.p.near)
	n.c.wantDest(destination, "DP", "EP", n.p)
	n.c.wantNoEndp(endpoint)
}

// wantQuiet waits until the daemon does nothing. Who spins runs, or waits for a
// processor, all the time.
func (d *daemon) wantQuiet() {
	d.t.Helper()
	const window = 200 * time.Millisecond
	eventually(d.t, func() error {
		began, busy := time.Now(), d.busy()
		time.Sleep(window)
		busy = d.busy() - busy
		if lasted := time.Since(began); busy > lasted/10 {
			return fmt.Errorf("with nothing to do the daemon was busy for %v of %v", busy, lasted)
		}
		return nil
	})
}

// busy is how long the daemon's threads have run or waited for a processor.
func (d *daemon) busy() (sum time.Duration) {
	d.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", d.PID))
	if err != nil || len(files) == 0 {
		d.t.Fatalf("no threads of %d: %v", d.PID, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		fields := strings.Fields(string(text))
		if err != nil || len(fields) < 2 {
			continue // the thread has ended
		}
		for _, field := range fields[:2] {
			ns, _ := strconv.ParseInt(field, 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

// wantPeak expects that the daemon has never needed more memory than follows
// from a bound on what it keeps. The rest is the program and Go's runtime, with
// 30 MiB; twice the bound, since a buffer that grows is copied; and twice that,
// since the collector waits until the heap has doubled.
func (d *daemon) wantPeak(bound int64) {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID))
	if err != nil {
		d.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[1] != "kB" {
		d.t.Fatalf("odd status %q", text)
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		d.t.Fatal(err)
	}
	peak, ceiling := kib<<10, 30<<20+4*bound
	d.t.Logf("the daemon needed %.1f MiB at most; the ceiling is %.1f", mebi(peak), mebi(ceiling))
	if peak > ceiling {
		d.t.Errorf("the daemon needed %.1f MiB, more than %.1f", mebi(peak), mebi(ceiling))
	}
}

func mebi(n int64) float64 { return float64(n) / (1 << 20) }

// A flood is a client that sends the same thing again and again and throws away
// what it is answered.
type flood struct {
	c       *client
	stop    atomic.Bool
	sent    atomic.Int64 // bytes, behind the head
	done    chan struct{}
	replies chan int64 // their number of bytes, at the end of the connection
}

// flood has a new client begin with the head, and go on with the piece.
func (d *daemon) flood(head, piece string) *flood {
	d.t.Helper()
	f := &flood{c: d.dial(), done: make(chan struct{}), replies: make(chan int64, 1)}
	for len(piece) < 32<<10 {
		piece += piece
	}
	go func() {
		defer close(f.done)
		f.c.send(head)
		for !f.stop.Load() {
			f.c.conn.SetWriteDeadline(time.Now().Add(patience))
			n, err := io.WriteString(f.c.conn, piece)
			f.sent.Add(int64(n))
			if err != nil {
				f.c.t.Errorf("the flood was stopped: %v", err)
				return
			}
		}
	}()
	go func() {
		f.c.conn.SetReadDeadline(time.Time{})
		n, _ := io.Copy(io.Discard, struct{ io.Reader }{f.c.conn})
		f.replies <- n
	}()
	return f
}

func (f *flood) length() int64 { return f.sent.Load() }

// end stops the flood behind a whole piece, sends the tail, and returns how many
// bytes of replies there were to all of it.
func (f *flood) end(tail string) int64 {
	f.c.t.Helper()
	f.stop.Store(true)
	<-f.done
	if tail != "" {
		f.c.send(tail)
	}
	f.c.shutdown()
	select {
	case n := <-f.replies:
		f.c.close()
		return n
	case <-time.After(patience):
		f.c.t.Fatal("the daemon does not come to the end of a flood")
		return 0
	}
}

// sendNow sends what there is room for.
func sendNow(fd int, s string) (n int, err error) {
	return unix.SendmsgN(fd, []byte(s), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}
