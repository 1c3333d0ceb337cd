package protocol

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	admin "github.com/scache/scache/client"
	"github.com/scache/scache/internal/master"
)

// Admin requests to the daemon as master(8) starts it: in a jail, as another user.

// administrate connects a Client of the Go package.
func (d *daemon) administrate() *admin.Client {
	d.t.Helper()
	c, err := admin.Dial(d.t.Context(), d.SocketPath)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// counted returns some of the statistics by name.
func (d *daemon) counted(names ...string) (values []int64) {
	d.t.Helper()
	s, err := d.administrate().Statistics(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	for _, name := range names {
		value, known := s.Values[name]
		if !known {
			d.t.Fatalf("there is no %s", name)
		}
		values = append(values, value)
	}
	return values
}

func (d *daemon) wantStatistic(name string, want int64) {
	d.t.Helper()
	if got := d.counted(name); got[0] != want {
		d.t.Errorf("%s is %d, want %d", name, got[0], want)
	}
}

func TestAdminList(t *testing.T) {
	t.Parallel()
	better(t, "stock has no admin requests")
	d := start(t)
	a, c, ctx := d.administrate(), d.dial(), t.Context()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := newPair(t)
	c.save("1000", "tcp\nlabel", "TP", int(file.Fd()))
	c.save("500", "unix", "UP", p.near)
	c.bind("100", "D", "DP", "unix")

	var kinds []string
	for e, err := range a.Connections(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, fmt.Sprintf("%s %s %s %s", e.Endpoint, e.Property, e.Kind, e.Remote))
		if e.Age > patience || e.Remaining+e.Age > 1000*time.Second+time.Second || e.Remaining < 400*time.Second {
			t.Errorf("age %v, remaining %v", e.Age, e.Remaining)
		}
	}
	slices.Sort(kinds)
	if want := []string{"tcp\nlabel TP tcp " + listener.Addr().String(), "unix UP unix "}; !slices.Equal(kinds, want) {
		t.Errorf("%q, want %q", kinds, want)
	}
	for b, err := range a.Bindings(ctx) {
		if err != nil || b.Destination != "D" || b.Endpoint != "unix" || b.Property != "DP" {
			t.Errorf("%+v, %v", b, err)
		}
	}
	c.wantDest("D", "DP", "UP", p)
	c.wantNoDest("D")
	n := 0
	for l, err := range a.Destinations(ctx) {
		if n++; err != nil || l != (admin.DestinationActivity{Destination: "D", Hits: 1, Misses: 1, Bindings: 1}) {
			t.Errorf("%+v, %v", l, err)
		}
	}
	if n != 1 {
		t.Errorf("%d destinations", n)
	}
}

// Whoever was told to be done has been done, and what the log says is the same.
func TestAdminSteers(t *testing.T) {
	t.Parallel()
	better(t, "stock has no admin requests")
	d := start(t)
	a, c, ctx := d.administrate(), d.dial(), t.Context()
	pairs := newPairs(t, 8)
	for i, p := range pairs {
		c.save("1000", fmt.Sprint("E", i/2), "EP", p.near)
		p.drop()
	}
	flush := func(what, value string, wantConnections, wantBindings int64) {
		t.Helper()
		connections, bindings, err := a.Flush(ctx, what, value)
		if connections != wantConnections || bindings != wantBindings || err != nil {
			t.Errorf("flush %s %s: %d connections, %d bindings, %v", what, value, connections, bindings, err)
		}
	}
	c.bind("1000", "D", "DP", "E1")
	flush(admin.Endpoint, "E0", 2, 0)
	flush(admin.Destination, "D", 2, 1)
	flush(admin.Pattern, "*3", 2, 0)
	for _, i := range []int{0, 1, 2, 3, 6, 7} {
		pairs[i].wantClosed(t)
	}

	if err := a.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	more := newPair(t)
	c.wantNoEndp("E2")
	c.save("1000", "E2", "EP", more.near)
	more.drop()
	more.wantClosed(t)
	d.wantStatistic("paused", 1)
	if err := a.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	c.wantEndp("E2", "EP", pairs[4])

	limits, err := a.SetLimit(ctx, "connection_cache_endpoint_limit", 1)
	if err != nil || !slices.Contains(limits, admin.Limit{Name: "connection_cache_endpoint_limit", Value: 1}) {
		t.Errorf("%v, %v", limits, err)
	}
	extra := newPairs(t, 2)
	for _, p := range extra {
		c.save("1000", "E2", "EP", p.near)
		p.drop()
	}
	pairs[5].wantClosed(t)
	extra[0].wantClosed(t)
	flush(admin.All, "", 1, 0)
	extra[1].wantClosed(t)

	_, err = a.SetLimit(ctx, "connection_cache_ttl_limit", 0)
	var refusal *admin.RefusalError
	if !errors.As(err, &refusal) || errors.Is(err, admin.ErrNotAllowed) {
		t.Errorf("%v, want a refusal", err)
	}
	d.leave()
	log := strings.Join(d.Texts(), "\n")
	for _, want := range []string{`: flushed destination "D": connections=2 bindings=1`, ": paused: true", ": paused: false",
		": connection_cache_endpoint_limit: 1", " flushed=7 "} {
		if !strings.Contains(log, want) {
			t.Errorf("there is no %q in the log", want)
		}
	}
}

// A lower limit, of which thousands of connections are above, is obeyed without anybody waiting.
func TestAdminLowersLimits(t *testing.T) {
	t.Parallel()
	better(t, "stock has no admin requests")
	d := start(t)
	a, c, p := d.administrate(), d.dial(), newPair(t)
	for i := range 2000 {
		c.save("1000", "E", prop(i), p.near)
		c.bind("1000", "D", prop(i), "F")
	}
	d.wantStatistic("connections", 2000)
	for name, value := range map[string]int64{"size": 500, "endpoint": 7, "binding": 900, "destination": 6} {
		if _, err := a.SetLimit(t.Context(), "connection_cache_"+name+"_limit", value); err != nil {
			t.Fatal(err)
		}
		c.inStep()
	}
	eventually(t, func() error {
		if now := d.counted("connections", "bindings"); !slices.Equal(now, []int64{7, 6}) {
			return fmt.Errorf("%d connections and bindings", now)
		}
		return nil
	})
	c.wantEndp("E", prop(1993), p) // those that expire last have stayed
	d.wantStatistic("closed_evicted", 1993)
	d.wantStatistic("bindings_displaced", 1994)
}

// Root may ask, and the user that the daemon runs as; nobody else.
func TestAdminIsNotForAll(t *testing.T) {
	t.Parallel()
	better(t, "stock has no admin requests")
	d := start(t)
	d.dial().inStep() // it has become who it is
	uid, _, _, _, err := d.Credentials()
	if err != nil || uid == 0 {
		t.Fatal(uid, err)
	}
	const pause, resume = "request\x00admin_pause\x00\x00", "request\x00admin_resume\x00\x00"
	own := d.dialAs(uid)
	own.send(pause + resume)
	own.want("status\x000\x00paused\x001\x00\x00status\x000\x00paused\x000\x00\x00")
	const nobody = 65534
	other := d.dialAs(nobody)
	const asks = 50
	for range asks {
		other.send(pause)
		other.want(fmt.Sprintf("status\x003\x00reason\x00not allowed: user %d asks; it takes root, or user %d, which this cache runs as\x00\x00", nobody, uid))
	}
	other.inStep()
	d.wantStatistic("paused", 0)
	d.wantStatistic("admin_denied", asks)
	lines := 0
	for _, line := range d.Texts() {
		if strings.Contains(line, "admin_pause: not allowed: user 65534") {
			lines++
		}
	}
	if lines == 0 || lines > asks/2 {
		t.Errorf("%d lines in the log for %d requests", lines, asks)
	}
}

// Stock knows nothing of it, and one can tell.
func TestAdminOfStock(t *testing.T) {
	t.Parallel()
	d := startWith(t, master.Config{Binary: stockScache(t), Unprivileged: true, Chroot: true})
	a, ctx := d.administrate(), t.Context()
	for range 2 { // the Client is not broken by it
		if _, err := a.Statistics(ctx); err != admin.ErrStock {
			t.Errorf("%v, want ErrStock", err)
		}
		if _, _, err := a.Flush(ctx, admin.All, ""); err != admin.ErrStock {
			t.Errorf("%v, want ErrStock", err)
		}
		for _, err := range a.Connections(ctx) {
			if err != admin.ErrStock {
				t.Errorf("%v, want ErrStock", err)
			}
		}
		if _, err := a.FindEndpoint(ctx, "x"); err != admin.ErrNotFound {
			t.Errorf("%v, want ErrNotFound", err)
		}
	}
}
