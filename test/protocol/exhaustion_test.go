package protocol

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/master"
)

// What happens when something runs out. limits_test.go has the descriptors that there
// are at the start.

// Somebody lowers the limit of a daemon with a full cache, and raises it again.
func TestLimitLowered(t *testing.T) {
	t.Parallel()
	better(t, "stock dies")
	d := startLimited(t, 256)
	p := newPair(t)
	c := d.dial()
	c.fillUp(p, 256)
	lower := unix.Rlimit{Cur: 64, Max: 256}
	if err := unix.Prlimit(d.PID, unix.RLIMIT_NOFILE, &lower, nil); err != nil {
		t.Fatal(err)
	}
	// The first one that is lost tells the daemon; from then on there is room.
	trySave := func() string {
		c.send(saveEndp("1000", "F", "F"))
		c.want(dummy)
		c.sendFD("\x00", p.near)
		return c.wantOneOf(statusOK, statusFail)
	}
	eventually(t, func() error {
		if trySave() != statusOK {
			return errNotYet
		}
		return nil
	})
	eventually(t, func() error {
		if n := d.fds(); n > 64 {
			return fmt.Errorf("%d descriptors are open", n)
		}
		return nil
	})
	for range 100 {
		c.save("1000", "F", "F", p.near)
	}
	d.dial().inStep()
	if err := unix.Prlimit(d.PID, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: 256}, nil); err != nil {
		t.Fatal(err)
	}
	c.save("1000", "F", "F", p.near)
}

// Clients have all descriptors: who saves gets room as long as something can be
// evicted, and status 2 then.
func TestClientsHaveAll(t *testing.T) {
	t.Parallel()
	better(t, "stock dies")
	d := startLimited(t, 64)
	p := newPair(t)
	c := d.dial()
	c.save("1000", "E", "EP", p.near)
	var others []*client
	for range 100 {
		others = append(others, d.dialOnly(t))
	}
	for range 20 {
		c.send(saveEndp("1000", "F", "F"))
		c.want(dummy)
		c.sendFD("\x00", p.near)
		c.wantOneOf(statusOK, statusFail)
		c.inStep()
	}
	for _, o := range others {
		o.close()
	}
	eventually(t, func() error {
		c.send(saveEndp("1000", "F", "F"))
		c.want(dummy)
		c.sendFD("\x00", p.near)
		if c.wantOneOf(statusOK, statusFail) == statusFail {
			return errNotYet
		}
		return nil
	})
	d.dial().inStep()
}

// Connections whose reply to QUIT is waited for make way for clients.
func TestFarewellsMakeRoomForClients(t *testing.T) {
	t.Parallel()
	better(t, "stock says no farewell")
	const limit = 64
	d := startWith(t, master.Config{
		Args:       []string{"-o", "connection_cache_ttl_limit=1h", "-o", "connection_cache_close_handshake=quit"},
		NoFileSoft: limit, NoFileHard: limit,
	})
	c := d.dial()
	pairs := newPairs(t, limit/2)
	for i, p := range pairs {
		c.save("1", "E", prop(i), p.near)
	}
	for _, p := range pairs {
		eventually(t, func() error {
			if n, _, err := unix.Recvfrom(p.far, make([]byte, 10), unix.MSG_DONTWAIT); n != len("QUIT\r\n") {
				return fmt.Errorf("read %d bytes of a QUIT: %v", n, err)
			}
			return nil
		})
	}
	for range limit / 2 {
		d.dial().inStep()
	}
	d.leave()
	if log := strings.Join(d.Texts(), "\n"); regexp.MustCompile(`accept|delayed clients=[1-9]`).MatchString(log) {
		t.Errorf("a client had to wait: %q", log)
	}
}

// With its bounds the daemon needs no more memory than it gets; without them it would
// die.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	better(t, "stock has no bounds")
	const (
		bound = 4 << 20
		limit = 256 << 20
		piece = 100_000
	)
	for name, parameters := range map[string][]string{
		"bounded": {"-o", fmt.Sprint("connection_cache_text_limit=", bound), "-o", fmt.Sprint("connection_cache_client_memory_limit=", bound)},
		"not":     {"-o", "connection_cache_text_limit=2000000000"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startWith(t, master.Config{Args: append(parameters, "-o", "connection_cache_ttl_limit=1h")})
			c := d.dial()
			c.inStep()
			// What is mapped to be written, resident or not.
			if err := unix.Prlimit(d.PID, unix.RLIMIT_DATA, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
				t.Fatal(err)
			}
			survived := c.pour(2*limit/piece, strings.Repeat("x", piece))
			if survived != (name == "bounded") {
				t.Errorf("survived: %t", survived)
			}
			if survived {
				d.dial().inStep()
			}
		})
	}
}

// pour saves n bindings with this property, and reports whether that was possible.
func (c *client) pour(n int, property string) (done bool) {
	c.control(func(fd int) error {
		reply := make([]byte, len(statusOK))
		for i := range n {
			for rest := []byte(saveDest("1000", fmt.Sprint("D", i), property, "E")); len(rest) > 0; {
				sent, err := unix.SendmsgN(fd, rest, nil, nil, unix.MSG_NOSIGNAL)
				if err != nil && err != unix.EAGAIN && err != unix.EINTR {
					return nil
				}
				rest = rest[max(sent, 0):]
			}
			for {
				n, err := unix.Read(fd, reply)
				if err == unix.EAGAIN || err == unix.EINTR {
					continue
				}
				if n != len(reply) {
					return nil
				}
				break
			}
		}
		done = true
		return nil
	})
	return done
}

// A client that finds and finds and never reads is sent a few descriptors, and no more:
// the kernel counts those on their way by user, and there are others.
func TestUnreadDescriptorsAreBounded(t *testing.T) {
	t.Parallel()
	better(t, "stock answers one request of a write")
	d := start(t)
	p := newPair(t)
	c, greedy := d.dial(), d.dial()
	const n, most = 100, 8
	for i := range n {
		c.save("1000", "E", prop(i), p.near)
	}
	full := d.fds()
	greedy.send(strings.Repeat(findEndp("E")+dummy+dummy, n))
	c.inStep()
	// It was sent as many as are not the daemon's any longer; one more is found.
	eventually(t, func() error {
		if sent := full - d.fds(); sent < most-1 {
			return fmt.Errorf("%d were sent", sent)
		}
		return nil
	})
	c.inStep()
	if sent := full - d.fds(); sent > most {
		t.Errorf("%d descriptors were sent to a client that reads none", sent)
	}
	for i := range n { // all come when it reads
		greedy.want(endpHit(prop(i)))
		p.wantBack(t, greedy.wantFD())
	}
	greedy.inStep()
}

// Vanished with the descriptor unread: back in the cache, for everybody.
func TestVanishedUnread(t *testing.T) {
	t.Parallel()
	better(t, "stock closes it")
	d := start(t)
	before := d.settled()
	c := d.dial()
	for i := range 20 {
		p := newPair(t)
		c.save("100", "E", prop(i), p.near)
		other := d.dial()
		other.send(findEndp("E"))
		other.want(endpHit(prop(i)))
		other.send(dummy)
		other.taken()
		d.arrived(other)
		other.close()
		d.wantFDs(before + 2) // the client and the connection
		c.wantEndp("E", prop(i), p)
	}
}

// arrived waits until the client has something to read.
func (d *daemon) arrived(c *client) {
	d.t.Helper()
	c.control(func(fd int) error {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				d.t.Error("nothing has arrived")
			}
			return err
		}
	})
}

// Descriptors of odd kinds, where they belong and where not: none is left behind.
func TestOddDescriptors(t *testing.T) {
	t.Parallel()
	better(t, "stock leaks some, and waits for its clients")
	d := start(t)
	d.besieged(func(n *neighbour) {
		c := d.dial()
		defer c.close()
		for _, kind := range oddKinds(t) {
			c.send(saveEndp("100", "odd", kind.name))
			c.want(dummy)
			c.sendFD("\x00", kind.fd)
			c.want(statusOK)
			c.send(findEndp("odd"))
			c.want(endpHit(kind.name))
			fd := c.take()
			if same, err := sameOpenFile(fd, kind.fd); err != nil || !same {
				t.Errorf("%s: another file came back, %v", kind.name, err)
			}
			unix.Close(fd)
			c.sendFD(findEndp("nothing"), slices.Repeat([]int{kind.fd}, 5)...)
			c.want(endpMiss)
			c.save("1", "expiring", "", kind.fd)
			n.served()
		}
		eventually(t, func() error {
			if _, fd := c.find("expiring"); fd >= 0 {
				unix.Close(fd)
				return errNotYet
			}
			return nil
		})
	})
}

type oddKind struct {
	name string
	fd   int
}

func oddKinds(t *testing.T) (kinds []oddKind) {
	t.Helper()
	add := func(name string, fd int, err error) int {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		kinds = append(kinds, oddKind{name, fd})
		return fd
	}
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	add("O_PATH", fd, err)
	fd, err = unix.Open("/tmp", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	add("directory", fd, err)
	fd, err = unix.Eventfd(1, unix.EFD_CLOEXEC)
	event := add("eventfd", fd, err)
	fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	epoll := add("epoll", fd, err)
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		t.Fatal(err)
	}
	fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	add("timerfd", fd, err)
	fd, err = unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	add("memfd", fd, err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Each holds the other, and itself, unread.
	for i, fd := range pair {
		if err := unix.Sendmsg(fd, []byte("x"), unix.UnixRights(pair[:]...), nil, 0); err != nil {
			t.Fatal(err)
		}
		add(fmt.Sprintf("a socket that holds itself, %d", i), fd, nil)
	}
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	add("netlink", fd, err)
	return kinds
}

// Thousands that connect and say nothing cost nobody anything.
func TestSilentClients(t *testing.T) {
	t.Parallel()
	better(t, "stock serves one at a time")
	d := start(t)
	d.besieged(func(n *neighbour) {
		silent := make([]*client, 5000)
		for i := range silent {
			silent[i] = d.dialOnly(t)
			if i%500 == 0 {
				n.served()
			}
		}
		n.served()
		for _, c := range silent {
			c.close()
		}
	})
}

// The kernel takes no more descriptors of the daemon's user (ETOOMANYREFS): who is due
// one waits, all others are served, and it comes when somebody has read theirs.
func TestTooManyOnTheirWay(t *testing.T) {
	t.Parallel()
	better(t, "stock gives up")
	const (
		limit, each = 64, 8
		waits       = "waits: too many references"
	)
	d := startWith(t, master.Config{
		Unprivileged: true,
		Args:         []string{"-o", "connection_cache_ttl_limit=1h"},
		MainCF:       "mail_owner = games\n", // nobody else's: it is users whom the kernel counts for
		NoFileSoft:   limit, NoFileHard: limit,
	})
	p := newPair(t)
	c := d.dial()
	var others []*client
	for range limit/each + 1 {
		other := d.dial()
		before := d.fds()
		for i := range each {
			c.save("1000", "E", prop(i), p.near)
		}
		other.send(strings.Repeat(findEndp("E")+dummy+dummy, each))
		others = append(others, other)
		eventually(t, func() error { // all were sent, or one waits
			if d.fds() == before || strings.Contains(strings.Join(d.Texts(), "\n"), waits) {
				return nil
			}
			return errNotYet
		})
	}
	c.inStep()
	d.dial().inStep()
	eventually(t, func() error {
		if log := strings.Join(d.Texts(), "\n"); !strings.Contains(log, waits) {
			return fmt.Errorf("logged %q", log)
		}
		return nil
	})
	for _, other := range others {
		for i := range each {
			other.want(endpHit(prop(i)))
			p.wantBack(t, other.wantFD())
		}
		other.inStep()
	}
	c.wantNoEndp("E")
}
