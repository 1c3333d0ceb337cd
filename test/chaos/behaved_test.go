package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/scache/scache/client"
)

// Names that behaving clients use, and others look up. Each destination refers to
// some endpoints.
const (
	endpoints    = 12
	destinations = 6
	perDest      = 3
)

func endpointName(n int) string    { return fmt.Sprintf("smtp\n192.0.2.%d\n25\n", n) }
func destinationName(n int) string { return fmt.Sprintf("smtp\ndest%d.example\n", n) }
func bound(destination, i int) int { return (destination*2 + i) % endpoints }

// property is what a connection is saved with: it tells which one it is, and where
// it belongs.
func property(serial, endpoint, padding int) string {
	return fmt.Sprintf("%d %d %d %s", serial, endpoint, padding, strings.Repeat("p", padding))
}

// behaved is a process of some clients that behave. It ends in good order when its
// standard input does.
type behaved struct {
	config config
	ops    atomic.Int64
	hits   atomic.Int64
	leave  atomic.Bool
	out    sync.Mutex
}

const clientsPerProcess = 4

func (b *behaved) run() {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		b.leave.Store(true)
	}()
	var all sync.WaitGroup
	for i := range clientsPerProcess {
		u := &user{behaved: b, rnd: rand.New(rand.NewPCG(b.config.Seed, uint64(i)))}
		all.Go(u.run)
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	for {
		b.say("ops %d %d", b.ops.Load(), b.hits.Load())
		select {
		case <-ended:
			b.say("ops %d %d", b.ops.Load(), b.hits.Load())
			b.say("done")
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// say reports a line to the test.
func (b *behaved) say(format string, arguments ...any) {
	b.out.Lock()
	defer b.out.Unlock()
	fmt.Printf(format+"\n", arguments...)
}

// user is one client of the cache.
type user struct {
	*behaved
	rnd   *rand.Rand
	cache *client.Client
}

// line is a connection to the sink that this client uses.
type line struct {
	net.Conn
	serial int
}

func (u *user) run() {
	for !u.leave.Load() {
		if u.cache == nil && !u.check("connect", u.connect()) {
			continue
		}
		for !u.leave.Load() && u.check("turn", u.turn()) {
			time.Sleep(time.Duration(u.rnd.IntN(20)) * time.Millisecond)
			if u.rnd.IntN(100) == 0 {
				break
			}
		}
		if u.cache != nil {
			u.cache.Close()
			u.cache = nil
		}
	}
}

// check says whether a client can go on, and reports an error for what it is: the
// connection to the cache is lost (the test knows whether that was the client's own
// fault, because it had been stopped), or an answer was wrong.
func (u *user) check(what string, err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		u.say("lost %s: %v", what, err)
	default: // no answer in all the time is wrong as well
		u.say("fault %s: %v", what, err)
	}
	return false
}

func (u *user) connect() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	u.cache, err = client.Dial(ctx, u.config.Socket)
	return err
}

// turn finds a connection or makes one, uses it, and saves it. The errors are the
// cache's: connections may break at any time.
func (u *user) turn() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var (
		l        *line
		endpoint = u.rnd.IntN(endpoints)
		err      error
	)
	if u.rnd.IntN(2) == 0 {
		if l, endpoint, err = u.find(ctx); err != nil {
			return err
		}
	}
	if l == nil {
		if l = u.dial(); l == nil {
			return nil
		}
	}
	defer l.Close() // when it is saved the cache has its own
	time.Sleep(time.Duration(u.rnd.IntN(5)) * time.Millisecond)
	if u.rnd.IntN(10) == 0 || l.ask("GIVE") != "ok" {
		return nil
	}
	return u.save(ctx, l, endpoint)
}

func (u *user) save(ctx context.Context, l *line, endpoint int) error {
	padding := u.rnd.IntN(200)
	if u.rnd.IntN(20) == 0 {
		padding = u.rnd.IntN(10_000)
	}
	ttl := time.Duration(1+u.rnd.IntN(2*ttlLimit)) * time.Second // the longer half is lowered
	asked := now()
	err := u.cache.SaveEndpoint(ctx, ttl, endpointName(endpoint), property(l.serial, endpoint, padding), l.Conn.(*net.TCPConn))
	switch {
	case errors.Is(err, client.ErrRefused):
		u.say("refused %d", asked)
	case err != nil:
		return err
	}
	u.ops.Add(1)
	destination := u.rnd.IntN(destinations)
	to := bound(destination, u.rnd.IntN(perDest))
	if err := u.cache.SaveDestination(ctx, ttl, destinationName(destination), fmt.Sprint(destination, " ", to), endpointName(to)); err != nil {
		return err
	}
	u.ops.Add(1)
	return nil
}

// find looks a connection up, in one of the two ways, and makes sure that it is the
// right one. nil is for none, or one that is dead already.
func (u *user) find(ctx context.Context) (l *line, endpoint int, err error) {
	endpoint = u.rnd.IntN(endpoints)
	destination := -1
	asked := now()
	var found *client.Connection
	if u.rnd.IntN(2) == 0 {
		found, err = u.cache.FindEndpoint(ctx, endpointName(endpoint))
	} else {
		destination = u.rnd.IntN(destinations)
		found, err = u.cache.FindDestination(ctx, destinationName(destination))
	}
	if err == client.ErrNotFound {
		u.ops.Add(1)
		return nil, endpoint, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if destination >= 0 {
		if endpoint, err = endpointOf(destination, found.DestinationProperty); err != nil {
			return nil, 0, err
		}
	}
	var serial, saved, padding int
	fmt.Sscan(found.EndpointProperty, &serial, &saved, &padding)
	if saved != endpoint || found.EndpointProperty != property(serial, endpoint, padding) {
		return nil, 0, fmt.Errorf("endpoint %d has property %.40q, %d bytes", endpoint, found.EndpointProperty, len(found.EndpointProperty))
	}
	conn, err := found.Conn()
	if err != nil {
		return nil, 0, fmt.Errorf("connection %d is none: %w", serial, err)
	}
	u.ops.Add(1)
	u.hits.Add(1)
	l = &line{conn, serial}
	switch answer := l.ask("TAKE"); answer {
	case fmt.Sprint(serial):
		return l, endpoint, nil
	case "":
		u.say("dead %d %d", serial, asked)
	default:
		err = fmt.Errorf("connection %d answers %q", serial, answer)
	}
	l.Close()
	return nil, endpoint, err
}

// endpointOf reads a destination's property.
func endpointOf(destination int, property string) (endpoint int, err error) {
	to := -1
	fmt.Sscan(property, new(int), &to)
	if property != fmt.Sprint(destination, " ", to) || !slices.ContainsFunc([]int{0, 1, 2}, func(i int) bool { return bound(destination, i) == to }) {
		return 0, fmt.Errorf("destination %d has property %q", destination, property)
	}
	return to, nil
}

// dial opens a new connection; nil if the sink ended it at once.
func (u *user) dial() *line {
	l, err := dialSink(u.config.Sink)
	if err != nil {
		u.say("fault dial: %v", err)
	}
	if l == nil {
		return nil
	}
	if u.rnd.IntN(10) == 0 { // the daemon's close might have to wait
		l.Conn.(*net.TCPConn).SetLinger(u.rnd.IntN(2))
	}
	return l
}

// dialSink opens a connection to the sink; nil if that ended it at once.
func dialSink(address string) (*line, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := &line{Conn: conn}
	if fmt.Sscanf(l.hear(), "220 %d", &l.serial); l.serial == 0 {
		l.Close()
		return nil, nil
	}
	return l, nil
}

// ask sends a command and returns the answer, which is empty if the connection is dead.
func (l *line) ask(command string) string {
	l.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(l, "%s\n", command); err != nil {
		return ""
	}
	return l.hear()
}

// hear reads a line, and nothing behind it.
func (l *line) hear() string {
	var answer []byte
	for b := make([]byte, 1); ; answer = append(answer, b[0]) {
		if _, err := l.Read(b); err != nil {
			return ""
		}
		if b[0] == '\n' {
			return string(answer)
		}
	}
}
