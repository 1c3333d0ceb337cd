package protocol

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
	"github.com/scache/scache/internal/master"
)

// PROTOCOL.md, "The process": life and death.

// Every way in which master.cf can start the daemon.
func TestMasterCf(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]master.Config{
		"unprivileged, chroot": {Unprivileged: true, Chroot: true},
		"unprivileged":         {Unprivileged: true},
		"privileged":           {},
		"other name":           {Unprivileged: true, Chroot: true, Service: "conncache"},
		"verbose":              {Unprivileged: true, Chroot: true, Args: []string{"-v"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startWith(t, cfg)
			c := d.dial()
			p := newPair(t)
			c.save("100", "E", "EP", p.near)
			c.wantEndp("E", "EP", p)
			uid, _, root, cwd, err := d.Credentials()
			if err != nil {
				t.Fatal(err)
			}
			wantRoot := "/"
			if cfg.Chroot {
				wantRoot = d.QueueDir
			}
			if (uid == 0) == cfg.Unprivileged || root != wantRoot || cwd != wantRoot && cwd != d.QueueDir {
				t.Errorf("runs as user %d in %s, %s", uid, root, cwd)
			}
			d.leave()
			if cfg.Args == nil {
				for _, line := range d.Log() {
					if !strings.Contains(line, fmt.Sprintf(" host postfix/scache[%d]: ", d.PID)) {
						t.Errorf("odd log line %q", line)
					}
				}
			}
		})
	}
}

// max_idle counts from the departure of the last client, whatever is cached.
func TestMaxIdle(t *testing.T) {
	t.Parallel()
	for _, words := range [][]string{{"-i", "2"}, {"-o", "max_idle=2s"}, {"-o", "max_idle=1h", "-i", "2s"}} {
		t.Run(strings.Join(words, " "), func(t *testing.T) {
			t.Parallel()
			d := start(t, words...)
			p := newPair(t)
			c, other := d.dial(), d.dial()
			c.save("1000", "E", "EP", p.near)
			p.drop()
			time.Sleep(3 * time.Second) // a client is a client, however silent
			c.inStep()
			c.close()
			other.inStep()
			began := time.Now()
			other.close()
			d.wantExit(0)
			if lasted := time.Since(began); lasted < 2*time.Second-early() {
				t.Errorf("left after %v", lasted)
			}
			p.wantClosed(t)
			d.wantStatistics(
				"statistics: address lookup hits=0 miss=2 success=0%",
				"statistics: max simultaneous domains=0 addresses=1 connection=1")
		})
	}
}

func TestMaxIdleWithoutAnyClient(t *testing.T) {
	t.Parallel()
	d := start(t, "-i", "1")
	d.wantExit(0)
	if log := d.Texts(); len(log) > 0 {
		t.Errorf("logged %q", log)
	}
}

// At end of file on the status channel the daemon leaves, clients or not.
func TestReload(t *testing.T) {
	t.Parallel()
	d := start(t)
	p := newPair(t)
	c, silent, halfway := d.dial(), d.dial(), d.dial()
	c.save("1000", "E", "EP", p.near)
	p.drop()
	if !stock { // which would wait for the rest
		halfway.send("request")
		halfway.taken()
	}
	d.CloseStatus()
	d.wantExit(0)
	for _, c := range []*client{c, silent, halfway} {
		c.wantEOF()
	}
	p.wantClosed(t)
	d.wantStatistics("statistics: max simultaneous domains=0 addresses=1 connection=1")
}

// What has arrived before the end of file is answered.
func TestReloadAnswersWhatHasArrived(t *testing.T) {
	t.Parallel()
	better(t, "stock leaves at once")
	d := start(t)
	clients := make([]*client, 20)
	for i := range clients {
		clients[i] = d.dial()
	}
	clients[0].inStep()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := lab.Stop(ctx, d.PID); err != nil {
		t.Fatal(err)
	}
	for i, c := range clients {
		if i%2 == 0 {
			c.send(findEndp("x"))
		} else {
			c.send(findDest("x") + findEndp("x"))
		}
	}
	d.CloseStatus()
	d.Signal(syscall.SIGCONT)
	for i, c := range clients {
		if i%2 == 0 {
			c.want(endpMiss)
		} else {
			c.want(destMiss + endpMiss)
		}
		c.wantEOF()
	}
	d.wantExit(0)
	d.wantStatistics(
		"statistics: domain lookup hits=0 miss=10 success=0%",
		"statistics: address lookup hits=0 miss=21 success=0%")
}

// A client that waits in the queue at a reload is served by the successor, since
// the listening socket stays. Here nobody comes: the socket closes with us.
func TestReloadIsQuick(t *testing.T) {
	t.Parallel()
	d := start(t)
	var clients []*client
	for range 50 {
		clients = append(clients, d.dial())
	}
	clients[0].inStep()
	began := time.Now()
	d.leave()
	if lasted := time.Since(began); lasted > 5*time.Second {
		t.Errorf("took %v to leave", lasted)
	}
}

func TestSIGTERM(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	c.inStep()
	d.Signal(syscall.SIGTERM)
	state, err := d.Wait(patience)
	if err != nil {
		t.Fatal(err)
	}
	if ws := state.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGTERM {
		if !ws.Exited() || ws.ExitStatus() != 0 {
			t.Errorf("ended with %v", state)
		}
	}
	c.wantEOF()
}

// Signals that master's process group may get do no harm.
func TestSIGPIPEIsIgnored(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	c.inStep()
	d.Signal(syscall.SIGPIPE)
	d.Signal(syscall.SIGXFSZ)
	c.inStep()
}

func TestMaxUseDoesNotApply(t *testing.T) {
	t.Parallel()
	for _, words := range [][]string{{"-m", "2"}, {"-o", "max_use=2"}} {
		d := start(t, words...)
		for range 10 {
			c := d.dial()
			c.inStep()
			c.close()
		}
		d.leave()
	}
}

func TestStatusRecords(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	for range 5 {
		c.save("100", "E", "EP", p.near)
		c.wantEndp("E", "EP", p)
	}
	eventually(t, func() error {
		records := d.StatusRecords()
		for _, r := range records {
			if r.PID != int32(d.PID) || r.Generation != master.Generation {
				t.Fatalf("odd status record %+v", r)
			}
		}
		if len(records) == 0 || !records[len(records)-1].Available {
			return errors.New("the daemon does not say that it is available")
		}
		return nil
	})
}

// A master that does not read the status channel does not stop the daemon.
func TestStatusChannelUnread(t *testing.T) {
	t.Parallel()
	better(t, "stock stops after 139 requests")
	d := startWith(t, master.Config{Unprivileged: true, Chroot: true, StatusUnread: true})
	c := d.dial()
	for range 2000 {
		c.inStep()
	}
	d.leave()
}

// Clients that connect before the daemon runs are served when it does.
func TestBacklog(t *testing.T) {
	t.Parallel()
	var early []*client
	d := startWith(t, master.Config{
		Unprivileged: true, Chroot: true,
		BeforeStart: func(m *master.Daemon) {
			d := &daemon{m, t}
			for i := range 100 {
				c := d.dialOnly(t)
				switch i % 4 {
				case 1:
					c.send(findEndp("x"))
				case 2:
					c.send(findDest("x"))
					c.shutdown()
				case 3:
					c.close() // connect and leave
				}
				early = append(early, c)
			}
		},
	})
	for i, c := range early {
		switch i % 4 {
		case 0:
			c.want(announcement)
			c.inStep()
		case 1:
			c.want(announcement + endpMiss)
			c.inStep()
		case 2:
			c.want(announcement + destMiss)
			c.wantEOF()
		}
	}
	d.dial().inStep()
}

// A successor on the same terms: nothing is left of the cache.
func TestNothingSurvives(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	pairs := newPairs(t, 20)
	for i, p := range pairs {
		c.save("1000", "E", prop(i), p.near)
		p.drop()
	}
	d.leave()
	for _, p := range pairs {
		if !p.closed() {
			t.Fatal("a connection outlives the daemon")
		}
	}
}
