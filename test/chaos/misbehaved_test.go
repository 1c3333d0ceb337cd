package chaos

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

// misbehave is a process of clients that do not behave. Each of them does a few
// things, of which the last is wrong, and then stops for a while or vanishes.
// Sometimes the whole process does.
func misbehave(c config) {
	const clients = 6
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			n := &nuisance{config: c, rnd: rand.New(rand.NewPCG(c.Seed, uint64(i)))}
			for {
				n.visit()
				if n.rnd.IntN(300) == 0 {
					os.Exit(0)
				}
			}
		})
	}
	all.Wait()
}

// nuisance is one such client. It ignores all errors: it has earned them.
type nuisance struct {
	config
	rnd  *rand.Rand
	conn *net.UnixConn
}

// nuisances is what it does.
var nuisances = []func(*nuisance){
	(*nuisance).half, (*nuisance).dripping, (*nuisance).garbage,
	(*nuisance).strayDescriptors, (*nuisance).severalDescriptors, (*nuisance).ownConnection,
	(*nuisance).oversized, (*nuisance).neverReading, (*nuisance).neverTaking, (*nuisance).greedy,
	(*nuisance).leaveSave, (*nuisance).leaveFind, (*nuisance).leaveWithConnection,
	(*nuisance).crowd,
}

func (n *nuisance) visit() {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: n.Socket, Net: "unix"})
	if err != nil {
		time.Sleep(50 * time.Millisecond)
		return
	}
	defer conn.Close()
	n.conn = conn
	if n.rnd.IntN(4) > 0 {
		n.receive() // the announcement
	}
	nuisances[n.rnd.IntN(len(nuisances))](n)
	n.stop()
}

// stop does nothing for a while: mostly a short one, at times longer than
// ipc_timeout.
func (n *nuisance) stop() {
	switch n.rnd.IntN(20) {
	case 0:
		time.Sleep(time.Duration(n.rnd.IntN(int(ipcTimeout + ipcTimeout/2))))
	case 1, 2, 3:
		time.Sleep(time.Duration(n.rnd.IntN(2000)) * time.Millisecond)
	case 4, 5, 6:
		n.conn.CloseWrite()
		fallthrough
	default:
		time.Sleep(time.Duration(n.rnd.IntN(100)) * time.Millisecond)
	}
}

func (n *nuisance) send(s string, fds ...int) {
	n.conn.SetWriteDeadline(time.Now().Add(time.Second))
	if len(fds) > 0 && s != "" {
		n.conn.WriteMsgUnix([]byte(s), unix.UnixRights(fds...), nil)
		return
	}
	n.conn.Write([]byte(s))
}

// receive reads once, and returns the descriptors that came.
func (n *nuisance) receive() (text string, fds []int) {
	buffer, control := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*4))
	n.conn.SetReadDeadline(time.Now().Add(time.Second))
	length, controlLength, _, _, err := n.conn.ReadMsgUnix(buffer, control)
	if err != nil {
		return "", nil
	}
	messages, _ := unix.ParseSocketControlMessage(control[:controlLength])
	for _, m := range messages {
		more, _ := unix.ParseUnixRights(&m)
		fds = append(fds, more...)
	}
	return string(buffer[:length]), fds
}

func (n *nuisance) part(s string) string { return s[:n.rnd.IntN(len(s))] }

// Its own names look like others', but nobody else looks there.
func (n *nuisance) ownName() string { return fmt.Sprintf("smtp\n198.51.100.%d\n", n.rnd.IntN(8)) }

// name is one of its own, or one where others save.
func (n *nuisance) name() string {
	if n.rnd.IntN(2) == 0 {
		return n.ownName()
	}
	return endpointName(n.rnd.IntN(endpoints))
}

// text is as long as it may be.
func (n *nuisance) text(most int) string { return strings.Repeat("x", n.rnd.IntN(most)) }

// The requests.
func (n *nuisance) save() string {
	return string(proto.AppendSaveEndpoint(nil, 1+n.rnd.IntN(ttlLimit), n.ownName(), n.text(5000)))
}

func (n *nuisance) bind() string {
	return string(proto.AppendSaveDestination(nil, 1+n.rnd.IntN(ttlLimit), n.ownName()+n.text(50), n.text(500), n.name()))
}

func (n *nuisance) find() string {
	if n.rnd.IntN(3) == 0 {
		return string(proto.AppendFindDestination(nil, destinationName(n.rnd.IntN(destinations))))
	}
	return string(proto.AppendFindEndpoint(nil, n.name()))
}

func (n *nuisance) any() string {
	return []func() string{n.save, n.bind, n.find}[n.rnd.IntN(3)]()
}

// withFiles calls f with something to be saved: the ends of a pipe, or a connection
// to the sink that nobody uses.
func (n *nuisance) withFiles(f func(fds ...int)) {
	if n.rnd.IntN(2) == 0 {
		var pipe [2]int
		if unix.Pipe2(pipe[:], unix.O_CLOEXEC) == nil {
			defer unix.Close(pipe[0])
			defer unix.Close(pipe[1])
			f(pipe[:]...)
		}
		return
	}
	l, err := dialSink(n.Sink)
	if err != nil || l == nil {
		return
	}
	defer l.Close()
	if l.ask("GIVE") != "ok" {
		return
	}
	withDescriptor(l.Conn.(*net.TCPConn), func(fd int) { f(fd) })
}

func (n *nuisance) half() {
	if n.rnd.IntN(2) == 0 {
		n.send(n.find())
	}
	n.send(n.part(n.any()))
}

func (n *nuisance) dripping() {
	for _, b := range []byte(n.find()) {
		n.send(string(b))
		time.Sleep(time.Millisecond)
	}
	n.receive()
}

func (n *nuisance) garbage() {
	text := make([]byte, 1+n.rnd.IntN(3000))
	for i := range text {
		text[i] = "\x00\x00\x00requestsave_endp0123456789\xff"[n.rnd.IntN(29)]
	}
	n.send(string(text))
	n.receive()
	n.send("request\x00find_endp\x00label\x00" + string(text))
}

func (n *nuisance) strayDescriptors() {
	n.withFiles(func(fds ...int) {
		n.send(n.any(), fds...)
		n.receive()
		n.send(proto.DummyMessage, fds...)
		n.send(n.part(n.any()), fds...)
	})
}

func (n *nuisance) severalDescriptors() {
	n.withFiles(func(fds ...int) {
		n.send(n.save())
		n.receive()
		for range 1 + n.rnd.IntN(6) {
			fds = append(fds, fds...)
		}
		n.send("x", fds[:min(len(fds), 250)]...)
		n.receive()
	})
}

// ownConnection saves the client's own connection to the daemon, which then does not
// see it end until that expires.
func (n *nuisance) ownConnection() {
	n.send(n.save())
	n.receive()
	withDescriptor(n.conn, func(fd int) { n.send("x", fd) })
	n.receive()
}

func (n *nuisance) oversized() {
	n.send(string(proto.AppendFindEndpoint(nil, n.text(6<<20))))
	n.receive()
}

func (n *nuisance) neverReading() {
	requests := strings.Repeat(n.find()+n.bind(), 200)
	for range n.rnd.IntN(20) {
		n.send(requests)
	}
}

// neverTaking asks for connections and gets them, and leaves them where they are.
func (n *nuisance) neverTaking() {
	for range n.rnd.IntN(40) {
		n.send(n.find() + proto.DummyMessage + proto.DummyMessage)
	}
}

// greedy takes up room.
func (n *nuisance) greedy() {
	for i := range n.rnd.IntN(200) {
		n.send(string(proto.AppendSaveDestination(nil, ttlLimit, fmt.Sprint(n.ownName(), i), n.text(16_000), n.name())))
		n.receive()
	}
	n.withFiles(func(fds ...int) {
		for range n.rnd.IntN(100) {
			n.send(n.save())
			n.receive()
			n.send("x", fds[0])
			n.receive()
		}
	})
}

// leaveSave and leaveFind do it right, up to a certain point.
func (n *nuisance) leaveSave() {
	n.send(n.save())
	if n.rnd.IntN(3) == 0 {
		return
	}
	n.receive()
	switch n.rnd.IntN(3) {
	case 0:
		n.send("x")
	case 1:
		n.withFiles(func(fds ...int) { n.send("x", fds[0]) })
	}
}

func (n *nuisance) leaveFind() {
	n.send(n.find())
	if n.rnd.IntN(4) == 0 {
		return
	}
	n.receive()
	n.send([]string{"", n.part(proto.DummyMessage), proto.DummyMessage, n.find()}[n.rnd.IntN(4)])
	if n.rnd.IntN(2) == 0 {
		return
	}
	_, fds := n.receive()
	closeAll(fds)
}

// leaveWithConnection uses what it has found and never acknowledges it: this
// connection must not be found by anybody else.
func (n *nuisance) leaveWithConnection() {
	endpoint := endpointName(n.rnd.IntN(endpoints))
	n.send(string(proto.AppendFindEndpoint(nil, endpoint)))
	if text, _ := n.receive(); !strings.HasPrefix(text, "status\x000") {
		return
	}
	n.send(proto.DummyMessage)
	_, fds := n.receive()
	if len(fds) == 0 {
		return
	}
	unix.Write(fds[0], []byte("TAKE\n"))
	n.conn.Close()
	time.Sleep(time.Duration(n.rnd.IntN(50)) * time.Millisecond)
	closeAll(fds)
}

// crowd comes and goes.
func (n *nuisance) crowd() {
	for range n.rnd.IntN(20) {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: n.Socket, Net: "unix"})
		if err == nil {
			conn.Write([]byte(n.part(n.any())))
			defer conn.Close()
		}
	}
	time.Sleep(time.Duration(n.rnd.IntN(100)) * time.Millisecond)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func withDescriptor(c syscall.Conn, f func(fd int)) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}
