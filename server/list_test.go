package server

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

// messages are read one by one from a socket.
type messages struct {
	t      *testing.T
	fd     int
	buffer []byte
}

// next returns the attributes of the next message by name; none for an empty one.
func (m *messages) next() map[string]string {
	m.t.Helper()
	for {
		var framer proto.Framer
		if n, done := framer.Next(m.buffer); done {
			all := map[string]string{}
			for rest := m.buffer[:n]; ; {
				name, value, next, ok := proto.Attribute(rest)
				if !ok {
					break
				}
				all[string(name)], rest = string(value), next
			}
			m.buffer = m.buffer[n:]
			return all
		}
		piece := make([]byte, 1<<16)
		n, err := read(m.fd, piece)
		if n <= 0 {
			m.t.Fatalf("%d, %v in the middle of a list", n, err)
		}
		m.buffer = append(m.buffer, piece[:n]...)
	}
}

// ask makes an admin request of one reply.
func ask(t *testing.T, fd int, op proto.AdminOp, arguments ...string) map[string]string {
	t.Helper()
	say(fd, string(proto.AppendAdmin(nil, op, arguments...)))
	m := &messages{t: t, fd: fd}
	reply := m.next()
	if reply["status"] != "0" {
		t.Fatalf("%v: %q", op, reply)
	}
	return reply
}

// While a client lists 15,000 connections and does not read, others are served, connections come
// and go, and it costs the server a buffer; then it reads, and gets each that was there all the time once, by
// their ages of when the list began.
func TestListWhileOthersWork(t *testing.T) {
	var files unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &files)
	many := min(15_000, int(files.Cur)*3/4)
	r := run(t, nil)
	lister, neighbour := r.dial(), r.dial()
	defer unix.Close(lister)
	defer unix.Close(neighbour)
	near, _ := socketPair(t)
	saveAs := func(label string) {
		say(neighbour, "request\x00save_endp\x00ttl\x0050\x00label\x00"+label+"\x00property\x00"+strings.Repeat("p", 100)+"\x00\x00")
		expect(t, neighbour, "dummy\x00\x00\x00")
		sendRights(t, neighbour, "\x00", near)
		expect(t, neighbour, "status\x000\x00\x00")
	}
	name := func(i int) string { return fmt.Sprint("e", i) }
	for i := range many {
		saveAs(name(i))
	}
	say(lister, string(proto.AppendAdmin(nil, proto.AdminList, "connections")))
	list := &messages{t: t, fd: lister}
	if status := list.next(); status["status"] != "0" {
		t.Fatal(status)
	}
	gone, moved := map[string]bool{}, map[string]bool{}
	for i := 0; i < many; i += 50 {
		say(neighbour, find(name(i)))
		expect(t, neighbour, "status\x000\x00property\x00"+strings.Repeat("p", 100)+"\x00\x00")
		switch i % 3 {
		case 0: // taken
			gone[name(i)] = true
			say(neighbour, proto.DummyMessage)
			expect(t, neighbour, "\x00")
			say(neighbour, proto.DummyMessage)
		case 1: // put back
			moved[name(i)] = true
			say(neighbour, "\x00")
		default: // put back, and another one in the place of one that leaves
			moved[name(i)] = true
			say(neighbour, "\x00")
			saveAs(name(many + i))
		}
	}
	bytes := 0
	fmt.Sscan(ask(t, neighbour, proto.AdminStatistics)["client_memory_bytes"], &bytes)
	if bytes == 0 || bytes > 2*enoughOutput {
		t.Errorf("%d bytes are kept of a list that is not read", bytes)
	}
	seen := map[string]bool{}
	ages := map[string]int{}
	var err error
	for e := list.next(); len(e) > 0; e = list.next() {
		label := e["connection"]
		if seen[label] {
			t.Fatalf("%s is listed twice", label)
		}
		seen[label] = true
		if ages[label], err = strconv.Atoi(e["age"]); err != nil {
			t.Fatal(err)
		}
	}
	oldest := 0 // of those looked at so far
	for i := many - 1; i >= 0; i-- {
		switch label := name(i); {
		case gone[label] || moved[label]:
		case !seen[label]:
			t.Fatalf("%s is not listed", label)
		case ages[label] < oldest:
			t.Fatalf("%s is %d ms old, and one that was saved later %d", label, ages[label], oldest)
		default:
			oldest = ages[label]
		}
		if later := name(many + i); seen[later] {
			t.Fatalf("%s is listed, which was saved after the list began", later)
		}
	}
}

// However long the list, a wake does a portion of it, as of requests.
func TestListIsDoneInPortions(t *testing.T) {
	s, err := New(Config{Log: discard{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1}, Cache{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.finish()
	stored := s.caches[0].store
	for i := range 1000 {
		stored.SaveDestination(fmt.Append(nil, i), nil, []byte("e"), 1000)
	}
	ours, theirs := socketPair(t)
	c := newConn(s, s.caches[0], ours)
	if err := s.admit(c); err != nil {
		t.Fatal(err)
	}
	say(theirs, string(proto.AppendAdmin(nil, proto.AdminList, "bindings"))+find("x"))
	list := &messages{t: t, fd: theirs}
	wakes, entries, collected := 0, 0, 0
	for c.Ready(c.fd, false) {
		wakes++
		n := strings.Count(string(c.session.out), "binding\x00")
		if n < collected {
			collected = 0 // they were sent
		}
		if n-collected > wakeBudget {
			t.Fatalf("%d entries in a wake", n-collected)
		}
		collected = n
	}
	for list.next(); len(list.next()) > 0; entries++ {
	}
	if entries != 1000 || wakes < entries/wakeBudget {
		t.Errorf("%d entries in %d wakes", entries, wakes)
	}
	if reply := list.next(); reply["status"] != "2" {
		t.Errorf("behind the list there is %q", reply)
	}
}

// A client that leaves in the middle of a list takes nothing with it.
func TestListerVanishes(t *testing.T) {
	r := run(t, nil)
	client := r.dial()
	defer unix.Close(client)
	for i := range 5000 {
		say(client, "request\x00save_dest\x00ttl\x0050\x00label\x00"+strings.Repeat("d", 100)+fmt.Sprint(i)+"\x00property\x00\x00label\x00e\x00\x00")
		expect(t, client, "status\x000\x00\x00")
	}
	for range 10 {
		lister := r.dial()
		say(lister, string(proto.AppendAdmin(nil, proto.AdminList, "bindings")))
		expect(t, lister, "status\x000\x00\x00binding")
		unix.Close(lister)
	}
	for ask(t, client, proto.AdminStatistics)["clients"] != "1" { // when they are noticed
	}
	if held := ask(t, client, proto.AdminStatistics)["client_memory_bytes"]; held != "0" {
		t.Errorf("%s bytes are kept", held)
	}
}

func TestDescribe(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	path := t.TempDir() + "/s"
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	udp, err := net.Dial("udp", "192.0.2.1:53")
	if err != nil { // no route: the kernel has no address to send from
		udp, err = net.Dial("udp", "127.0.0.1:53")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	dial := func(network, address string) net.Conn {
		c, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	type filer interface{ File() (*os.File, error) }
	for _, c := range []struct {
		of           any
		kind, remote string
	}{
		{dial("tcp", listener.Addr().String()), "tcp", listener.Addr().String()},
		{listener, "tcp", ""},
		{udp, "udp", udp.RemoteAddr().String()},
		{dial("unix", path), "unix", path},
	} {
		file, err := c.of.(filer).File()
		if err != nil {
			t.Fatal(err)
		}
		if kind, remote := describe(int(file.Fd())); kind != c.kind || remote != c.remote {
			t.Errorf("%T is %s to %q, want %s to %q", c.of, kind, remote, c.kind, c.remote)
		}
		file.Close()
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if kind, remote := describe(int(null.Fd())); kind != "file" || remote != "" {
		t.Errorf("/dev/null is %s to %q", kind, remote)
	}
}

func TestAddresses(t *testing.T) {
	for want, address := range map[string]unix.Sockaddr{
		"192.0.2.1:25":       &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 25},
		"[2001:db8::1]:2525": &unix.SockaddrInet6{Addr: [16]byte{0x20, 1, 0xd, 0xb8, 15: 1}, Port: 2525},
		"@a@b":               &unix.SockaddrUnix{Name: "@a\x00b"},
		"":                   &unix.SockaddrNetlink{},
	} {
		if got := addressText(address); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if unnamed := addressText(&unix.SockaddrUnix{Name: "@"}); unnamed != "" {
		t.Errorf("%q for what has no address", unnamed)
	}
}
