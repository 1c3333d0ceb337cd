package sink

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func start(t *testing.T, failed func(error)) *Process {
	t.Helper()
	p, err := Start(failed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *Process) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// A delivery as smtp(8) makes it, written at once, byte by byte, and cut in the
// middle of a line.
func TestSinkSpeaksSMTP(t *testing.T) {
	p := start(t, func(err error) { t.Error(err) })
	const said = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: s\r\n\r\n..\r\nDATA\r\n.\r\nrset\r\nVRFY\r\nQUIT\r\n"
	const want = Greeting + Hello + OK + OK + Go + OK + OK + Unknown + Bye
	for _, pieces := range []int{1, 2, 3, len(said)} {
		c := dial(t, p)
		for at, size := 0, (len(said)+pieces-1)/pieces; at < len(said); at += size {
			if _, err := c.Write([]byte(said[at:min(at+size, len(said))])); err != nil {
				t.Fatal(err)
			}
			if size > 1 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		var heard strings.Builder
		bufio.NewReader(c).WriteTo(&heard) // to the end: QUIT closes
		if heard.String() != want {
			t.Errorf("in %d pieces: %q, want %q", pieces, heard.String(), want)
		}
	}
	if c, err := p.AwaitClosed(10 * time.Second); err != nil || c != (Counts{4, 4, 4}) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestLineWithoutEnd(t *testing.T) {
	p := start(t, func(err error) { t.Error(err) })
	c := dial(t, p)
	fmt.Fprint(c, strings.Repeat("x", longestLine+1))
	var heard strings.Builder
	bufio.NewReader(c).WriteTo(&heard)
	if heard.String() != Greeting+TooLong {
		t.Errorf("%q", heard.String())
	}
}

func TestOpenConnectionsAreTold(t *testing.T) {
	p := start(t, func(err error) { t.Error(err) })
	bufio.NewReader(dial(t, p)).ReadString('\n')
	if c, err := p.AwaitClosed(50 * time.Millisecond); err == nil || c.Opened != 1 || c.Closed != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestStoppingByItselfIsAFailure(t *testing.T) {
	failed := make(chan error, 1)
	p := start(t, func(err error) { failed <- err })
	p.cmd.Process.Kill()
	select {
	case err := <-failed:
		t.Log(err)
	case <-time.After(10 * time.Second):
		t.Error("nobody noticed")
	}
	if _, err := p.Counts(); err == nil {
		t.Error("a sink that is gone still counts")
	}
}
