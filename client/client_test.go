package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/client"
	"github.com/scache/scache/internal/lab"
	"github.com/scache/scache/proto"
)

// socket is where a server of this test listens.
var socket string

// textLimit is how many bytes of texts it keeps.
const textLimit = 8 << 20

func TestMain(m *testing.M) {
	os.Exit(withServer(m.Run))
}

// withServer builds scache and runs "scache serve" around a function.
func withServer(run func() int) int {
	dir, err := os.MkdirTemp("", "scache")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary, err := lab.Build(context.Background(), dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	socket = filepath.Join(dir, "socket")
	server := exec.Command(binary, "serve", "-socket", socket, "-ttl-limit", "60s", "-text-limit", strconv.Itoa(textLimit))
	log, err := server.StderrPipe()
	if err != nil {
		panic(err)
	}
	if err := server.Start(); err != nil {
		panic(err)
	}
	defer server.Wait()
	defer server.Process.Signal(os.Interrupt)
	if line, err := bufio.NewReader(log).ReadString('\n'); err != nil || !strings.Contains(line, "listening on") {
		fmt.Fprintln(os.Stderr, "no server:", line, err)
		return 1
	}
	go io.Copy(io.Discard, log)
	return run()
}

// One program saves a connection to a mail server; another one, or the same,
// finds it and goes on with it. The server is "scache serve -socket PATH".
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	cache, err := client.Dial(ctx, socket)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close()

	// A connection that has just delivered a message.
	conn := dialReceiver()
	endpoint := "smtp\n192.0.2.1\n25\n"
	if err := cache.SaveDestination(ctx, 2*time.Second, "example.com", "", endpoint); err != nil {
		fmt.Println(err)
	}
	if err := cache.SaveEndpoint(ctx, 2*time.Second, endpoint, "SIZE PIPELINING", conn); err != nil {
		fmt.Println(err)
	}
	conn.Close() // the cache has its own

	// The next message for the same destination.
	found, err := cache.FindDestination(ctx, "example.com")
	if errors.Is(err, client.ErrNotFound) {
		fmt.Println("connect anew")
		return
	} else if err != nil {
		fmt.Println(err)
		return
	}
	again, err := found.Conn()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer again.Close()
	fmt.Fprintf(again, "RSET\r\n")
	reply, _ := bufio.NewReader(again).ReadString('\n')
	fmt.Println(found.EndpointProperty, "->", strings.TrimSpace(reply))

	_, err = cache.FindDestination(ctx, "example.com")
	fmt.Println(err)
	// Output:
	// SIZE PIPELINING -> 250 ok
	// scache: not found
}

// dialReceiver returns a TCP connection to a receiver that says yes to everything.
func dialReceiver() *net.TCPConn {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		panic(err)
	}
	peer, err := listener.Accept()
	if err != nil {
		panic(err)
	}
	go func() {
		defer peer.Close()
		for lines := bufio.NewScanner(peer); lines.Scan(); {
			fmt.Fprintf(peer, "250 ok\r\n")
		}
	}()
	return conn.(*net.TCPConn)
}

func dial(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestFile(t *testing.T) {
	c, ctx := dial(t), t.Context()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(file, "some text")
	file.Seek(5, io.SeekStart)
	if err := c.SaveEndpoint(ctx, time.Second, "file", "", file); err != nil {
		t.Fatal(err)
	}
	file.Close()
	found, err := dial(t).FindEndpoint(ctx, "file")
	if err != nil {
		t.Fatal(err)
	}
	defer found.File.Close()
	if rest, err := io.ReadAll(found.File); string(rest) != "text" {
		t.Errorf("read %q, %v", rest, err)
	}
	if _, err := found.Conn(); err == nil {
		t.Error("a regular file passes for a net.Conn")
	}
}

// What was found is the client's alone as soon as it has it, though it asks for nothing else: a client that
// owed the server a word would be cut off some time.
func TestTaken(t *testing.T) {
	c, other, ctx := dial(t), dial(t), t.Context()
	taken := func() int64 {
		s, err := other.Statistics(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s.Values["closed_taken"]
	}
	conn := dialReceiver()
	defer conn.Close()
	if err := c.SaveEndpoint(ctx, time.Minute, "taken", "", conn); err != nil {
		t.Fatal(err)
	}
	before := taken()
	found, err := c.FindEndpoint(ctx, "taken")
	if err != nil {
		t.Fatal(err)
	}
	again, err := found.Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := found.File.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("File, when Conn has taken its place: %v, want ErrClosed", err)
	}
	for deadline := time.Now().Add(20 * time.Second); taken() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server waits for the client still")
		}
	}
}

func TestLongTexts(t *testing.T) {
	c, ctx := dial(t), t.Context()
	long := strings.Repeat("x", 1<<20)
	conn := dialReceiver()
	defer conn.Close()
	if err := c.SaveDestination(ctx, time.Minute, long, long+"d", long); err != nil {
		t.Fatal(err)
	}
	if err := c.SaveEndpoint(ctx, time.Minute, long, long+"e", conn); err != nil {
		t.Fatal(err)
	}
	found, err := c.FindDestination(ctx, long)
	if err != nil {
		t.Fatal(err)
	}
	found.File.Close()
	if found.DestinationProperty != long+"d" || found.EndpointProperty != long+"e" {
		t.Error("the properties came back different")
	}
}

// Texts that there is no room for are refused, and the client goes on.
func TestTooLongTexts(t *testing.T) {
	c, ctx := dial(t), t.Context()
	long := strings.Repeat("x", textLimit)
	conn := dialReceiver()
	defer conn.Close()
	if err := c.SaveDestination(ctx, time.Minute, long, "", "too long"); err != client.ErrRefused {
		t.Errorf("destination: %v, want ErrRefused", err)
	}
	if err := c.SaveEndpoint(ctx, time.Minute, "too long", long+"x", conn); err != client.ErrRefused {
		t.Errorf("endpoint: %v, want ErrRefused", err)
	}
	if _, err := c.FindEndpoint(ctx, "too long"); err != client.ErrNotFound {
		t.Errorf("%v, want ErrNotFound", err)
	}
}

// A list that is left when its context has ended is left all the same.
func TestListIsLeft(t *testing.T) {
	c := dial(t)
	if err := c.SaveDestination(t.Context(), time.Minute, "left", "", "e"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range c.Bindings(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		break
	}
}

// Nothing else can be asked for in the loop over a list, which goes on.
func TestRequestWithinList(t *testing.T) {
	c, ctx := dial(t), t.Context()
	const many = 3000
	for i := range many {
		if err := c.SaveDestination(ctx, time.Minute, fmt.Sprint("within ", i), "", "e"); err != nil {
			t.Fatal(err)
		}
	}
	listed := 0
	for b, err := range c.Bindings(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(b.Destination, "within ") {
			listed++
		}
		if _, err := c.Limits(ctx); listed == 5 && err != client.ErrBroken {
			t.Errorf("a request within the loop: %v", err)
		}
	}
	if _, err := c.Limits(ctx); listed != many || err != nil {
		t.Errorf("%d of %d listed, and afterwards %v", listed, many, err)
	}
}

func TestMistakes(t *testing.T) {
	c, ctx := dial(t), t.Context()
	if err := c.SaveDestination(ctx, math.MaxInt64, "a", "", "b"); err == nil || err == client.ErrRefused {
		t.Errorf("a time to live without end: %v", err)
	}
	if _, err := c.FindEndpoint(ctx, "a\x00b"); err == nil {
		t.Error("a NUL byte in a name passes")
	}
	if err := c.SaveDestination(ctx, 0, "a", "", "b"); err == nil || err == client.ErrRefused {
		t.Errorf("a time to live of 0: %v", err)
	}
	if err := c.SaveDestination(ctx, time.Nanosecond, "a", "", "b"); err != nil {
		t.Errorf("the shortest time to live: %v", err)
	}
	if err := c.SaveDestination(ctx, time.Minute, "a", "\x00", "b"); err == nil || err == client.ErrRefused {
		t.Errorf("a NUL byte in a destination's property: %v", err)
	}
	conn := dialReceiver()
	if err := c.SaveEndpoint(ctx, time.Minute, "a", "\x00", conn); err == nil || err == client.ErrRefused {
		t.Errorf("a NUL byte in an endpoint's property: %v", err)
	}
	if _, err := c.FindDestination(ctx, "a"); err != client.ErrNotFound {
		t.Errorf("after mistakes that were not sent: %v, want ErrNotFound", err)
	}
	conn.Close()
	if err := c.SaveEndpoint(ctx, time.Second, "a", "", conn); err == nil {
		t.Error("a closed connection passes")
	}
	if _, err := dial(t).FindEndpoint(ctx, "a"); err != client.ErrNotFound {
		t.Errorf("%v, want ErrNotFound", err)
	}
}

// A server that says nothing, or something else.
func TestContextEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Dial(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial: %v, want a context error", err)
	}

	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, "protocol\x00connection_cache_protocol\x00\x00")
		}
	}()
	// The first of the queue is the client that has given up.
	c, err := client.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := c.FindEndpoint(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("FindEndpoint: %v, want a context error", err)
	}
	if _, err := c.FindEndpoint(t.Context(), "a"); err != client.ErrBroken {
		t.Errorf("FindEndpoint: %v, want ErrBroken", err)
	}
}

func TestNoCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	speakAt(t, path, "protocol\x00other\x00\x00")
	if _, err := client.Dial(t.Context(), path); err == nil || !strings.Contains(err.Error(), "no connection cache") {
		t.Errorf("Dial: %v", err)
	}
}

// speak is a server that says these words, one after each of what it hears, and returns the path of its socket.
func speak(t *testing.T, words ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	speakAt(t, path, proto.Announcement, words...)
	return path
}

// speakAt is speak with a greeting of its own, at a path.
func speakAt(t *testing.T, path, greeting string, words ...string) {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, greeting)
		heard := make([]byte, 1<<10)
		for _, word := range words {
			conn.Read(heard)
			io.WriteString(conn, word)
		}
		conn.Read(heard)
	}()
}

// What a server has no room for is refused, at whatever point it says so; what it must not say is an error, and ends the
// conversation.
func TestAnswers(t *testing.T) {
	const ok, bad, failed, entry, end = "status\x000\x00\x00", "status\x001\x00\x00", "status\x002\x00\x00", "binding\x00a\x00\x00", "\x00"
	conn := dialReceiver()
	defer conn.Close()
	ctx := t.Context()
	endpoint := func(c *client.Client) error { return c.SaveEndpoint(ctx, time.Minute, "a", "", conn) }
	destination := func(c *client.Client) error { return c.SaveDestination(ctx, time.Minute, "a", "", "b") }
	find := func(c *client.Client) error { _, err := c.FindEndpoint(ctx, "a"); return err }
	list := func(c *client.Client) (err error) {
		for _, err = range c.Bindings(ctx) {
		}
		return err
	}
	other := errors.New("another one")
	for _, test := range []struct {
		ask   func(*client.Client) error
		words []string
		want  error
	}{
		{endpoint, []string{failed}, client.ErrRefused},
		{endpoint, []string{proto.DummyMessage, failed}, client.ErrRefused},
		{endpoint, []string{proto.DummyMessage, ok}, nil},
		{endpoint, []string{ok}, other},
		{endpoint, []string{proto.DummyMessage + end}, other},
		{destination, []string{failed}, client.ErrRefused},
		{destination, []string{ok}, nil},
		{destination, []string{ok + ok}, other},
		{destination, []string{entry}, other},
		{find, []string{failed}, client.ErrNotFound},
		{find, []string{bad}, client.ErrRefused},
		{find, []string{end}, other},
		{find, []string{ok, end}, other}, // without a descriptor
		{list, []string{ok + entry + end}, nil},
		{list, []string{bad}, client.ErrStock},
		{list, []string{ok + entry + end + end}, other},
	} {
		c, err := client.Dial(ctx, speak(t, test.words...))
		if err != nil {
			t.Fatal(err)
		}
		err = test.ask(c)
		if !slices.Contains([]error{nil, client.ErrRefused, client.ErrNotFound, client.ErrStock}, err) {
			err = other
		}
		if err != test.want {
			t.Errorf("%q: %v, want %v", test.words, err, test.want)
		}
		if broken := test.ask(c) == client.ErrBroken; broken != (test.want == other) {
			t.Errorf("%q: broken: %v", test.words, broken)
		}
		c.Close()
	}
}

// A server may say more of an entry than is known here, or less, also than it said of the one before.
func TestOtherAttributes(t *testing.T) {
	c, err := client.Dial(t.Context(), speak(t, "status\x000\x00\x00binding\x00a\x00news\x00x\x00property\x00p\x00\x00binding\x00b\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got []client.Binding
	for b, err := range c.Bindings(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b)
	}
	if want := []client.Binding{{Destination: "a", Property: "p"}, {Destination: "b"}}; !slices.Equal(got, want) {
		t.Errorf("listed %+v, want %+v", got, want)
	}
}

// The path of a socket may be as long as the kernel takes it.
func TestLongPath(t *testing.T) {
	t.Chdir(t.TempDir())
	longest := strings.Repeat("s", 107)
	speakAt(t, longest, proto.Announcement)
	if c, err := client.Dial(t.Context(), longest); err != nil {
		t.Errorf("Dial: %v", err)
	} else {
		c.Close()
	}
	if _, err := client.Dial(t.Context(), longest+"s"); err == nil || !strings.Contains(err.Error(), "107 bytes at most") {
		t.Errorf("Dial: %v", err)
	}
}

// Who connects while the server's queue of clients is full waits for a place in it.
func TestFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "full")
	address := &unix.SockaddrUnix{Name: path}
	newSocket := func() int {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	listener := newSocket()
	defer unix.Close(listener)
	if err := errors.Join(unix.Bind(listener, address), unix.Listen(listener, 0)); err != nil {
		t.Fatal(err)
	}
	waiting := newSocket()
	defer unix.Close(waiting)
	if err := unix.Connect(waiting, address); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Dial(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while nobody is accepted: %v", err)
	}
	enough := errors.New("enough")
	ended, end := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { end(enough) })
	if _, err := client.Dial(ended, path); !errors.Is(err, enough) {
		t.Errorf("who has waited long enough: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() {
		for range 2 {
			for fd, err := -1, error(unix.EAGAIN); err == unix.EAGAIN; time.Sleep(time.Millisecond) {
				if fd, _, err = unix.Accept(listener); err == nil {
					unix.Write(fd, []byte(proto.Announcement))
					unix.Close(fd)
				}
			}
		}
	})
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
