package server

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/handover"
	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
)

func handsOver(c *Config) { c.HandOver = true }

// connect connects, and takes nothing.
func (r *running) connect() int {
	r.t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: r.path}); err != nil {
		r.t.Fatal(err)
	}
	return fd
}

// successorOf makes a server that can take over from r.
func successorOf(r *running, change ...func(*Config)) *running {
	r.t.Helper()
	n := &running{t: r.t, log: &logbook{}, path: r.path, done: make(chan error, 1)}
	config := r.Server.config
	config.Log = n.log
	for _, change := range change {
		change(&config)
	}
	var err error
	if n.Server, err = New(config, Cache{Name: r.path}); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// succeed puts another server into the place of r, which ends. Those who look see what it has
// before it serves.
func (r *running) succeed(look ...func(*Server)) *running {
	r.t.Helper()
	return r.giveTo(successorOf(r), look...)
}

// giveTo is succeed for a server that there is already.
func (r *running) giveTo(n *running, look ...func(*Server)) *running {
	r.t.Helper()
	fd := r.connect()
	defer unix.Close(fd)
	predecessor, err := n.TakeOver(fd, r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, look := range look {
		look(n.Server)
	}
	if err := predecessor.Confirm(); err != nil {
		r.t.Fatal(err)
	}
	if err := <-r.done; err != ErrSucceeded {
		r.t.Fatalf("the server before: %v", err)
	}
	r.done <- nil
	go func() { n.done <- n.Run() }()
	r.t.Cleanup(n.stop)
	return n
}

// exchange is what a client says, or hears.
type exchange struct {
	say, hear      string
	sends, receive bool // a byte with a descriptor
}

// everything is a conversation that is in each state once.
var everything = []exchange{
	{say: "request\x00save_dest\x00ttl\x0050\x00label\x00d\x00property\x00dp\x00label\x00e\x00\x00"},
	{hear: "status\x000\x00\x00"},
	{say: "request\x00save_endp\x00ttl\x0050\x00label\x00e\x00property\x00ep\x00\x00"},
	{hear: proto.DummyMessage},
	{sends: true},
	{hear: "status\x000\x00\x00"},
	{say: "request\x00find_endp\x00label\x00other\x00\x00"},
	{hear: miss},
	{say: "request\x00find_dest\x00label\x00d\x00\x00"},
	{hear: "status\x000\x00property\x00dp\x00property\x00ep\x00\x00"},
	{say: proto.DummyMessage},
	{receive: true},
	{say: proto.DummyMessage},
	{say: "request\x00find_endp\x00label\x00e\x00\x00"},
	{hear: miss},
}

// A server takes over from another one behind every byte that a client sends, and every reply
// that it reads. The client does not notice.
func TestTakeOverBehindEveryByte(t *testing.T) {
	r := run(t, handsOver)
	client := r.dial()
	defer unix.Close(client)
	cached, _ := socketPair(t)
	for _, e := range everything {
		switch {
		case e.sends:
			sendRights(t, client, "\x00", cached)
		case e.receive:
			if got := receive(t, client); !sameSocket(got, cached) {
				t.Error("that is another connection")
			}
		case e.say != "":
			for i := range len(e.say) {
				say(client, e.say[i:i+1])
				r = r.succeed()
			}
			continue
		default:
			expect(t, client, e.hear)
		}
		r = r.succeed()
	}
	r.stop()
	want := []string{
		"statistics: domain lookup hits=1 miss=0 success=100%",
		"statistics: address lookup hits=0 miss=2 success=0%",
		"statistics: max simultaneous domains=1 addresses=1 connection=1",
	}
	if got := r.log.lines[len(r.log.lines)-3:]; !slices.Equal(got, want) {
		t.Errorf("the last lines are %q, want %q", got, want)
	}
}

// receive receives a descriptor.
func receive(t *testing.T, client int) int {
	t.Helper()
	control := make([]byte, unix.CmsgSpace(4))
	n, controls, err := 0, 0, error(unix.EINTR)
	for err == unix.EINTR {
		n, controls, _, _, err = unix.Recvmsg(client, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil || n != 1 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:controls])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d control messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%d descriptors, %v", len(fds), err)
	}
	t.Cleanup(func() { unix.Close(fds[0]) })
	return fds[0]
}

func sameSocket(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Ino == y.Ino
}

// contents is what a server has, by values that mean the same in any process.
func contents(s *Server) map[string]int {
	all := make(map[string]int)
	for _, c := range s.caches {
		order := make(map[string]int)
		for _, b := range bindings(c.store) {
			order[string(b.Destination)]++
			all[fmt.Sprintf("binding %d %q %q %q until %d", order[string(b.Destination)], b.Destination, b.Property, b.Endpoint, b.Deadline)]++
		}
		for connection := range c.store.Connections() {
			var file unix.Stat_t
			if err := unix.Fstat(connection.FD(), &file); err != nil {
				panic(err)
			}
			all[fmt.Sprintf("connection %q %x %d until %d: %d", connection.Endpoint(), sha256.Sum256(connection.Property()), connection.Serial(), connection.Deadline(), file.Ino)]++
		}
		c.stats.each(func(name string, counter *int) { all[name] = *counter })
	}
	for c := range s.clients {
		record, _ := c.record()
		all[fmt.Sprintf("client in state %v, input %x, output %d bytes, due %d", c.session.state, sha256.Sum256(record.Input), len(c.session.out), dueTick(&c.timer))]++
	}
	return all
}

// bindings are all there are, in the order of first saving.
func bindings(s *store.Store) (all []store.Binding) {
	walk := s.Walk()
	for more := true; more; {
		var b store.Binding
		var any bool
		if b, any, more = s.NextBinding(&walk); any {
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b store.Binding) int { return cmp.Compare(a.Serial, b.Serial) })
	return all
}

// fill puts all kinds of things into a server, and returns its clients.
func fill(t *testing.T, r *running) (clients []int) {
	t.Helper()
	for range 8 {
		clients = append(clients, r.dial())
	}
	c := clients[0]
	for i := range 300 {
		cached, _ := socketPair(t)
		save(t, c, strconv.Itoa(20+i%7), fmt.Sprint("endpoint ", i%11), cached)
		say(c, fmt.Sprintf("request\x00save_dest\x00ttl\x00%d\x00label\x00destination %d\x00property\x00p\x00label\x00endpoint %d\x00\x00", 20+i%5, i%13, i))
		expect(t, c, "status\x000\x00\x00")
	}
	large := strings.Repeat("x", 1<<20)
	cached, _ := socketPair(t)
	say(clients[1], "request\x00save_endp\x00ttl\x0050\x00label\x00large\x00property\x00"+large+"\x00\x00")
	expect(t, clients[1], proto.DummyMessage)
	sendRights(t, clients[1], "\x00", cached)
	expect(t, clients[1], "status\x000\x00\x00")
	say(clients[1], find("large"))                             // a reply that does not fit into the socket
	say(clients[2], find("half")[:20])                         // half a request
	say(clients[3], find("endpoint 1"))                        // a find, the go-ahead is due
	say(clients[4], find("endpoint 2")+proto.DummyMessage)     // a find, handed over
	say(clients[5], "request\x00find_endp\x00label\x00"+large) // what will be too long
	say(clients[5], large+large+large)
	say(clients[6], "request\x00save_endp\x00ttl\x0050\x00label\x00late\x00property\x00late\x00\x00")
	expect(t, clients[6], proto.DummyMessage) // a save, the descriptor is due
	// All has arrived when a client that comes later is answered, and the long message by its
	// length.
	say(clients[7], find("nothing"))
	expect(t, clients[7], miss)
	return clients
}

// telling is a log that calls a function when the server says that another one has taken over, which is
// before it lets go of anything.
type telling struct {
	*logbook
	succeeded func()
}

func (l telling) Infof(format string, a ...any) {
	if strings.Contains(format, "has taken over") {
		l.succeeded()
	}
	l.logbook.Infof(format, a...)
}

// Nothing is lost, and nothing changes.
func TestTakeOverKeepsEverything(t *testing.T) {
	var old atomic.Pointer[Server]
	had := make(chan map[string]int, 1)
	r := run(t, func(c *Config) {
		handsOver(c)
		c.Log = telling{c.Log.(*logbook), func() { had <- contents(old.Load()) }}
	})
	old.Store(r.Server)
	clients := fill(t, r)
	n := successorOf(r)
	fd := r.connect()
	defer unix.Close(fd)
	predecessor, err := n.TakeOver(fd, r.path)
	if err != nil {
		t.Fatal(err)
	}
	after := contents(n.Server)
	if err := predecessor.Confirm(); err != nil {
		t.Fatal(err)
	}
	before := <-had
	maps.DeleteFunc(before, func(what string, _ int) bool { return strings.HasPrefix(what, "client in state succeeding") })
	if !maps.Equal(before, after) {
		for what, n := range before {
			if after[what] != n {
				t.Errorf("%.200s: %d before, %d after", what, n, after[what])
			}
		}
		t.Fatalf("%d before, %d after", len(before), len(after))
	}
	go func() { n.done <- n.Run() }()
	t.Cleanup(n.stop)
	if err := <-r.done; err != ErrSucceeded {
		t.Fatal(err)
	}
	r.done <- nil

	expect(t, clients[1], "status\x000\x00property\x00"+strings.Repeat("x", 1<<20)+"\x00\x00")
	say(clients[2], find("half")[20:])
	expect(t, clients[2], miss)
	expect(t, clients[3], "status\x000\x00property\x00p\x00\x00")
	say(clients[3], proto.DummyMessage)
	receive(t, clients[3])
	expect(t, clients[4], "status\x000\x00property\x00p\x00\x00")
	receive(t, clients[4])
	say(clients[4], proto.DummyMessage+find("nothing"))
	expect(t, clients[4], miss)
	say(clients[5], strings.Repeat("x", 2<<20)+"\x00\x00")
	expect(t, clients[5], "status\x001\x00property\x00\x00\x00")
	cached, _ := socketPair(t)
	sendRights(t, clients[6], "\x00", cached)
	expect(t, clients[6], "status\x000\x00\x00")
	say(clients[7], find("late")+proto.DummyMessage)
	expect(t, clients[7], "status\x000\x00property\x00late\x00\x00")
	if got := receive(t, clients[7]); !sameSocket(got, cached) {
		t.Error("that is another connection")
	}
	for _, c := range clients {
		unix.Close(c)
	}
}

// stages are the ways in which a successor fails: what it does, and what the log says.
var stages = []struct {
	name string
	fail func(t *testing.T, fd int)
	log  string
}{
	{"connects and leaves", func(*testing.T, int) {}, ""},
	{"asks and leaves", func(t *testing.T, fd int) {
		expect(t, fd, proto.Announcement) // unread it would be a reset, and what we say lost
		say(fd, string(proto.AppendTakeOver(nil)))
	}, "has not taken over"},
	{"says half a request", func(t *testing.T, fd int) { say(fd, string(proto.AppendTakeOver(nil)[:10])) }, ""},
	{"says too much", func(t *testing.T, fd int) {
		say(fd, string(proto.AppendTakeOver(nil))+"what is this?")
		awaitEnd(t, fd)
	}, "has not taken over"},
	{"refuses", func(t *testing.T, fd int) {
		channel := askToSucceed(t, fd)
		receiveAll(t, channel)
		if err := channel.SendAnswer(handover.Answer{Failure: "no room here"}); err != nil {
			t.Fatal(err)
		}
		awaitEnd(t, fd)
	}, "no room here"},
	{"refuses early", func(t *testing.T, fd int) {
		channel := askToSucceed(t, fd)
		defer channel.Discard()
		if err := channel.SendAnswer(handover.Answer{Failure: "early"}); err != nil {
			t.Fatal(err)
		}
	}, "has not taken over"},
	{"is silent", func(t *testing.T, fd int) {
		defer askToSucceed(t, fd).Discard()
		for buffer := make([]byte, 1<<16); ; {
			if n, err := read(fd, buffer); n <= 0 || err != nil {
				return
			}
		}
	}, "no answer in time"},
	{"reads nothing", func(t *testing.T, fd int) {
		say(fd, string(proto.AppendTakeOver(nil)))
		for { // until the server has given up
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			if n, _ := unix.Poll(poll, 10_000); n > 0 {
				return
			}
		}
	}, "no answer in time"},
}

func askToSucceed(t *testing.T, fd int) *handover.Channel {
	t.Helper()
	channel := handover.NewChannel(fd)
	for _, step := range []func() error{
		func() error { _, err := channel.ReceiveMessage(); return err },
		func() error { return channel.SendMessage(proto.AppendTakeOver(nil)) },
		func() error { _, err := channel.ReceiveMessage(); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return channel
}

// receiveAll receives everything, and keeps nothing.
func receiveAll(t *testing.T, channel *handover.Channel) {
	t.Helper()
	for {
		r, descriptors, err := channel.Receive()
		if err != nil {
			t.Fatal(err)
		}
		closeAll(descriptors)
		if r.End != nil {
			return
		}
	}
}

// awaitEnd reads up to the end of file.
func awaitEnd(t *testing.T, fd int) {
	t.Helper()
	for buffer := make([]byte, 1<<16); ; {
		n, err := read(fd, buffer)
		if n <= 0 || err == unix.ECONNRESET {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// If the successor fails, the server goes on as if nothing had happened.
func TestSuccessorFails(t *testing.T) {
	r := run(t, handsOver)
	clients := fill(t, r)
	open := func() int { return len(descriptorsOfProcess(t)) }
	begin := open()
	for _, stage := range stages {
		t.Log(stage.name)
		lines := r.log.length()
		fd := r.connect()
		stage.fail(t, fd)
		unix.Close(fd)
		say(clients[7], find("nothing"))
		expect(t, clients[7], miss)
		if stage.log != "" {
			waitFor(t, func() bool { return strings.Contains(r.log.from(lines), stage.log) })
		}
	}
	// One that leaves behind every so many records.
	for records := 0; ; records++ {
		fd := r.connect()
		channel := askToSucceed(t, fd)
		all := false
		for range records {
			got, descriptors, err := channel.Receive()
			if err != nil {
				t.Fatal(err)
			}
			closeAll(descriptors)
			if all = got.End != nil; all {
				break
			}
		}
		channel.Discard()
		unix.Close(fd)
		if all {
			break
		}
	}

	waitFor(t, func() bool { return open() <= begin })
	// And all is there still for one that does not fail.
	r.succeed(func(s *Server) {
		if got := s.cached(); got != 300+1-3 { // two are found, and the large one
			t.Errorf("%d connections", got)
		}
	})
	say(clients[7], find("endpoint 3"))
	expect(t, clients[7], "status\x000\x00property\x00p\x00\x00")
}

func (l *logbook) length() int {
	l.Lock()
	defer l.Unlock()
	return len(l.lines)
}

// from returns the lines behind the first n.
func (l *logbook) from(n int) string {
	l.Lock()
	defer l.Unlock()
	return strings.Join(l.lines[n:], "\n")
}

// openPoller has Go's runtime open what it polls with, which it keeps.
var openPoller = sync.OnceValue(func() error {
	r, w, err := os.Pipe()
	return errors.Join(err, r.Close(), w.Close())
})

// descriptorsOfProcess are all that are open. While a test runs, some of another one's may be closed.
func descriptorsOfProcess(t *testing.T) []os.DirEntry {
	t.Helper()
	if err := openPoller(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// waitFor fails the test if something does not become true in good time.
func waitFor(t *testing.T, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !true(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come about")
		}
	}
}

// dyingVariable makes the test's program a predecessor that dies after so many records.
const dyingVariable = "SCACHE_TEST_DIES_AFTER"

func TestMain(m *testing.M) {
	if text, ok := os.LookupEnv(dyingVariable); ok {
		after, err := strconv.Atoi(text)
		if err != nil {
			panic(err)
		}
		dieAfter(after)
		return
	}
	os.Exit(m.Run())
}

// dyingRecords are what it says, in this order.
func dyingRecords() []handover.Record {
	now := monotonic()
	return []handover.Record{
		{Hello: &handover.Hello{Version: handover.Version, Started: now - 1e9}},
		{Cache: &handover.Cache{Name: "before"}},
		{Stopped: &handover.Stopped{StatisticsDue: 1 << 40}},
		{Bindings: []handover.Binding{{Destination: []byte("d"), Property: []byte("p"), Endpoint: []byte("e"), Deadline: 1 << 40}}},
		{Connections: []handover.Connection{{Endpoint: []byte("e"), Property: []byte("p"), Deadline: 1 << 40, Serial: 1}}},
		{Client: &handover.Client{Announce: true}},
		{End: &handover.End{Bindings: 1, Connections: 1, Clients: 1}},
		{Go: &handover.Go{}},
	}
}

// dieAfter plays a predecessor on descriptor 3; of the records so many are said. 4 is a
// client's socket and a connection as well.
func dieAfter(records int) {
	channel := handover.NewChannel(3)
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	must(channel.SendMessage([]byte(proto.Announcement)))
	_, err := channel.ReceiveMessage()
	must(err)
	must(channel.SendMessage(proto.AppendStatus(nil, proto.OK)))
	for _, r := range dyingRecords()[:records] {
		if r.Go != nil {
			must(channel.ReceiveAnswer())
		}
		var descriptors []int
		if r.Connections != nil || r.Client != nil {
			descriptors = append(descriptors, 4)
		}
		must(errors.Join(channel.Send(&r, descriptors...), channel.Flush()))
	}
	must(unix.Kill(os.Getpid(), unix.SIGKILL))
}

// The predecessor dies at every step. Before it has said all, there is nothing to go on with; from
// then on the successor serves.
func TestPredecessorDies(t *testing.T) {
	all := len(dyingRecords()) - 1
	for after := 0; after <= all+1; after++ {
		begin := len(descriptorsOfProcess(t))
		ours, theirs := socketPair(t)
		ourClient, theirClient := socketPair(t)
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), dyingVariable+"="+strconv.Itoa(after))
		cmd.Stderr = os.Stderr
		for _, fd := range []int{theirs, theirClient} {
			duplicate, err := unix.Dup(fd)
			if err != nil {
				t.Fatal(err)
			}
			file := os.NewFile(uintptr(duplicate), "")
			cmd.ExtraFiles = append(cmd.ExtraFiles, file)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for _, file := range cmd.ExtraFiles {
			file.Close()
		}
		unix.Close(theirs)
		s, err := New(Config{Log: &logbook{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1}, Cache{Name: "before"})
		if err != nil {
			t.Fatal(err)
		}
		predecessor, err := s.TakeOver(ours, "")
		if after < all {
			if !errors.Is(err, ErrDied) {
				t.Errorf("dead after %d records: %v", after, err)
			}
			unix.Close(s.wake)
		} else {
			if err != nil {
				t.Fatalf("dead after %d records: %v", after, err)
			}
			if err := predecessor.Confirm(); err != nil {
				t.Fatalf("dead after %d records: %v", after, err)
			}
			done := make(chan error)
			go func() { done <- s.Run() }()
			unix.Close(theirClient)
			say(ourClient, "request\x00find_dest\x00label\x00d\x00\x00")
			expect(t, ourClient, proto.Announcement+"status\x000\x00property\x00p\x00property\x00p\x00\x00")
			s.Stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
			unix.Close(s.wake)
		}
		cmd.Wait()
		unix.Close(ours)
		unix.Close(ourClient)
		unix.Close(theirClient)
		waitFor(t, func() bool { return len(descriptorsOfProcess(t)) <= begin })
	}
}

// Under master(8), where it is not enabled, the request does not exist.
func TestNobodyTakesOverUnasked(t *testing.T) {
	r := run(t, nil)
	fd := r.connect()
	defer unix.Close(fd)
	if _, err := successorOf(r).TakeOver(fd, r.path); err == nil || !strings.Contains(err.Error(), "does not hand over") {
		t.Errorf("%v", err)
	}
	client := r.dial()
	defer unix.Close(client)
	say(client, string(proto.AppendTakeOver(nil))+find("x"))
	expect(t, client, "status\x001\x00\x00"+miss)
}
