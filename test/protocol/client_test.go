package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A client is one connection to the daemon. It sends what it is told and fails
// the test unless exactly the expected comes back: bytes, and descriptors on
// the very byte they belong to.
type client struct {
	t    testing.TB
	conn *net.UnixConn

	in   []byte // received, not yet expected
	seen int    // what was expected before in
	fds  []arrival
}

// An arrival is a set of descriptors that came with byte number at.
type arrival struct {
	at  int
	fds []int
}

// dial connects, and expects the announcement.
func (d *daemon) dial() *client {
	d.t.Helper()
	c := d.dialOnly(d.t)
	c.want(announcement)
	return c
}

// dialFor is dial for a subtest.
func (d *daemon) dialFor(t testing.TB) *client {
	t.Helper()
	c := d.dialOnly(t)
	c.want(announcement)
	return c
}

// dialOnly connects and leaves the announcement to be read.
func (d *daemon) dialOnly(t testing.TB) *client {
	t.Helper()
	conn, err := d.Dial()
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, conn)
}

func newClient(t testing.TB, conn *net.UnixConn) *client {
	c := &client{t: t, conn: conn}
	t.Cleanup(c.close)
	return c
}

// dialAs connects as another user.
func (d *daemon) dialAs(uid int) *client {
	d.t.Helper()
	conn, err := d.DialAs(uid)
	if err != nil {
		d.t.Fatal(err)
	}
	c := newClient(d.t, conn)
	c.want(announcement)
	return c
}

func (c *client) close() {
	c.conn.Close()
	for _, a := range c.fds {
		closeAll(a.fds)
	}
	c.fds = nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// send sends bytes in one write (or several, when they are too many for one).
func (c *client) send(s string) {
	c.t.Helper()
	c.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("sending %.60q: %v", s, err)
	}
}

// sendFD sends bytes with descriptors attached to the first of them.
func (c *client) sendFD(s string, fds ...int) {
	c.t.Helper()
	c.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, _, err := c.conn.WriteMsgUnix([]byte(s), unix.UnixRights(fds...), nil); err != nil {
		c.t.Fatalf("sending %.60q with %d descriptors: %v", s, len(fds), err)
	}
}

// taken waits until the daemon has read all that was sent. It is how the tests
// see to it that a message really arrives in pieces.
func (c *client) taken() {
	c.t.Helper()
	for end, n := time.Now().Add(patience), 0; ; n++ {
		unread := c.unread()
		if unread == 0 {
			return
		}
		if time.Now().After(end) {
			c.t.Fatal("the daemon does not read what was sent")
		}
		if n > 100 {
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// unread tells how much of what was sent has not been read (in memory, not
// exactly in bytes).
func (c *client) unread() (n int) {
	c.t.Helper()
	c.control(func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		return err
	})
	return n
}

// control runs f on the connection's descriptor.
func (c *client) control(f func(fd int) error) {
	c.t.Helper()
	raw, err := c.conn.SyscallConn()
	if err == nil {
		err2 := raw.Control(func(fd uintptr) { err = f(int(fd)) })
		err = errors.Join(err, err2)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// shutdown ends our half of the connection.
func (c *client) shutdown() {
	c.t.Helper()
	if err := c.conn.CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// fill receives once.
func (c *client) fill(timeout time.Duration) error {
	var buf [64 << 10]byte
	oob := make([]byte, unix.CmsgSpace(4*64))
	c.conn.SetReadDeadline(time.Now().Add(timeout))
	n, oobn, flags, _, err := c.conn.ReadMsgUnix(buf[:], oob)
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return errors.New("control data truncated")
	}
	c.in = append(c.in, buf[:n]...)
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		// The kernel ends a read behind the byte that carried descriptors.
		c.fds = append(c.fds, arrival{c.seen + len(c.in) - 1, fds})
	}
	return nil
}

// tryWant expects exactly these bytes, and no descriptor with any of them.
func (c *client) tryWant(s string) error {
	for len(c.in) < len(s) && strings.HasPrefix(s, string(c.in)) {
		if err := c.fill(patience); err != nil {
			return fmt.Errorf("expecting %.80q, have %.80q: %w", s, c.in, err)
		}
	}
	if !bytes.HasPrefix(c.in, []byte(s)) {
		return fmt.Errorf("expecting %.80q (%d bytes), have %.80q (%d bytes)", s, len(s), c.in, len(c.in))
	}
	if len(c.fds) > 0 && c.fds[0].at < c.seen+len(s) {
		return fmt.Errorf("%d descriptors came with %.80q", len(c.fds[0].fds), s)
	}
	c.skip(len(s))
	return nil
}

func (c *client) skip(n int) {
	c.in = c.in[n:]
	c.seen += n
}

func (c *client) want(s string) {
	c.t.Helper()
	if err := c.tryWant(s); err != nil {
		c.t.Fatal(err)
	}
}

// wantOneOf expects one of these (none begins with another), and returns it.
func (c *client) wantOneOf(s ...string) string {
	c.t.Helper()
	for {
		for _, s := range s {
			if bytes.HasPrefix(c.in, []byte(s)) {
				c.want(s)
				return s
			}
		}
		if err := c.fill(patience); err != nil {
			c.t.Fatalf("expecting one of %q, have %.80q: %v", s, c.in, err)
		}
	}
}

// message receives a whole message and returns its strings.
func (c *client) message() []string {
	c.t.Helper()
	for {
		if end := endOfMessage(c.in); end > 0 {
			s := string(c.in[:end])
			c.want(s)
			return strings.Split(strings.TrimSuffix(s, "\x00\x00"), "\x00")
		}
		if err := c.fill(patience); err != nil {
			c.t.Fatalf("expecting a message, have %.80q: %v", c.in, err)
		}
	}
}

// endOfMessage is the length of the first message in b, 0 if it is incomplete.
func endOfMessage(b []byte) int {
	for at := 0; ; {
		name := bytes.IndexByte(b[at:], 0)
		if name < 0 {
			return 0
		}
		at += name + 1
		if name == 0 {
			return at
		}
		value := bytes.IndexByte(b[at:], 0)
		if value < 0 {
			return 0
		}
		at += value + 1
	}
}

// wantFD expects the byte 00 with exactly one descriptor.
func (c *client) wantFD() int {
	c.t.Helper()
	if len(c.in) == 0 {
		if err := c.fill(patience); err != nil {
			c.t.Fatalf("expecting a descriptor: %v", err)
		}
	}
	if c.in[0] != 0 || len(c.fds) == 0 || c.fds[0].at != c.seen || len(c.fds[0].fds) != 1 {
		c.t.Fatalf("expecting one descriptor on a zero byte, have %.80q with %v", c.in, c.fds)
	}
	fd := c.fds[0].fds[0]
	c.fds = c.fds[1:]
	c.skip(1)
	return fd
}

// wantEOF expects that the daemon has closed, or closes, the connection.
func (c *client) wantEOF() {
	c.t.Helper()
	if len(c.in) == 0 {
		err := c.fill(patience)
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return
		}
		if err != nil {
			c.t.Fatalf("expecting the end of the connection: %v", err)
		}
	}
	c.t.Fatalf("expecting the end of the connection, have %.80q", c.in)
}

// nothing says that nothing has come so far. On its own it proves little.
func (c *client) nothing() {
	c.t.Helper()
	c.control(func(fd int) error {
		var b [64]byte
		n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT|unix.MSG_PEEK)
		if err == unix.EAGAIN && len(c.in) == 0 {
			return nil
		}
		return fmt.Errorf("expecting nothing, have %q%q, %v", c.in, b[:max(n, 0)], err)
	})
}
