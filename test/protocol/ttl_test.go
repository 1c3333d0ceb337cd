package protocol

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/master"
)

// PROTOCOL.md, "The cache": time. Asserted is only what no delay of this
// machine can break: that nothing goes before its TTL, counted from before the
// save began, and that it goes at all.

// early is how much too soon a connection may go: Postfix counts whole seconds.
func early() time.Duration {
	if stock {
		return time.Second
	}
	return 0
}

func TestExpiryClosesByItself(t *testing.T) {
	t.Parallel()
	d := start(t)
	before := d.settled()
	for ttl := 1; ttl <= 3; ttl++ {
		t.Run(fmt.Sprint(ttl), func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			c := d.dialFor(t)
			began := time.Now()
			c.save(fmt.Sprint(ttl), fmt.Sprint("E", ttl), "EP", p.near)
			c.close() // nobody is there whom the daemon would have to serve
			p.wantClosed(t)
			if lived := time.Since(began); lived < time.Duration(ttl)*time.Second-early() {
				t.Errorf("a TTL of %d s lasted %v", ttl, lived)
			}
		})
	}
	t.Cleanup(func() { d.wantFDs(before) })
}

// A connection is found until its TTL, and never after it.
func TestFoundExactlyUntilTTL(t *testing.T) {
	t.Parallel()
	better(t, "a TTL is exact")
	d := start(t)
	const ttl = 2 * time.Second
	c := d.dial()
	pairs := newPairs(t, 60)
	began := make([]time.Time, len(pairs))
	var done time.Time
	for i, p := range pairs {
		began[i] = time.Now()
		c.save("2", "E", prop(i), p.near)
		done = time.Now()
	}
	for i, p := range pairs {
		sent := time.Now()
		name, fd := c.find("E")
		if fd < 0 {
			if age := time.Since(began[i]); age < ttl {
				t.Fatalf("not found at the age of %v", age)
			}
			return
		}
		if name != prop(i) {
			// Right, if all before it have expired: where saving took long.
			var found int
			fmt.Sscanf(name, "P%d", &found)
			if age := time.Since(began[max(found-1, 0)]); found < i || age < ttl {
				t.Fatalf("found %s, not %s at the age of %v", name, prop(i), age)
			}
			unix.Close(fd)
			return
		}
		p.wantBack(t, fd)
		// The daemon reads its clock once a turn; a turn may be
		// interrupted, but hardly for so long.
		if age := sent.Sub(done); age > ttl+250*time.Millisecond {
			t.Fatalf("still found at the age of %v", age)
		}
		time.Sleep(45 * time.Millisecond)
	}
	t.Fatal("all were found")
}

// The same of bindings.
func TestBindingFoundExactlyUntilTTL(t *testing.T) {
	t.Parallel()
	better(t, "a TTL is exact")
	d := start(t)
	const ttl = 2 * time.Second
	c := d.dial()
	p := newPair(t)
	began := time.Now()
	c.bind("2", "D", "DP", "E")
	done := time.Now()
	for {
		c.save("100", "E", "EP", p.near)
		sent := time.Now()
		if !c.tryDest("D", p) {
			if age := time.Since(began); age < ttl {
				t.Fatalf("not found at the age of %v", age)
			}
			return
		}
		if age := sent.Sub(done); age > ttl+250*time.Millisecond {
			t.Fatalf("still found at the age of %v", age)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// tryDest looks a destination up and takes what it finds.
func (c *client) tryDest(label string, p *pair) bool {
	c.t.Helper()
	c.send(findDest(label))
	if c.message()[1] != "0" {
		return false
	}
	p.wantBack(c.t, c.take())
	return true
}

// wantUnbound waits until a destination is bound to the endpoint no more.
func (c *client) wantUnbound(dest, endp string) {
	c.t.Helper()
	p := newPair(c.t)
	eventually(c.t, func() error {
		c.save("1000", endp, "probe", p.near)
		if c.tryDest(dest, p) {
			return fmt.Errorf("%q is still bound to %q", dest, endp)
		}
		c.wantEndp(endp, "probe", p)
		return nil
	})
}

func TestExpiryDoesNotShutDown(t *testing.T) {
	t.Parallel()
	d := start(t)
	before := d.settled()
	p := newPair(t)
	c := d.dial()
	c.save("1", "E", "EP", p.near)
	c.close()
	d.wantFDs(before)
	talk(t, p.near, p.far)
	talk(t, p.far, p.near)
}

func TestTTLIsClamped(t *testing.T) {
	t.Parallel()
	d := start(t, "-o", "connection_cache_ttl_limit=2s")
	c := d.dial()
	p := newPair(t)
	began := time.Now()
	c.bind("1000", "D", "DP", "E")
	c.save("2147483647", "F", "EP", p.near)
	c.bind("2147483647", "D2", "DP", "E")
	p.wantClosed(t)
	if lived := time.Since(began); lived < 2*time.Second-early() {
		t.Errorf("lasted %v", lived)
	}
	c.wantUnbound("D", "E")
	c.wantUnbound("D2", "E")
}

func TestDefaultTTLLimit(t *testing.T) {
	t.Parallel()
	d := startWith(t, master.Config{Unprivileged: true, Chroot: true}) // 2s
	c := d.dial()
	p := newPair(t)
	c.save("1000", "E", "EP", p.near)
	p.wantClosed(t)
}

func TestRefreshWithLongerTTL(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	first, second := newPair(t), newPair(t)
	c.bind("2", "D", "A", "A")
	c.bind("1000", "D", "B", "B")
	c.bind("1000", "D", "A", "A")
	time.Sleep(3500 * time.Millisecond) // past the old deadline
	c.save("1000", "B", "EP", second.near)
	c.save("1000", "A", "EP", first.near)
	c.wantDest("D", "A", "EP", first) // which has kept its place
	c.wantDest("D", "B", "EP", second)
}

func TestRefreshWithShorterTTL(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	c.bind("1000", "D", "DP", "E")
	began := time.Now()
	c.bind("2", "D", "DP", "E")
	c.wantUnbound("D", "E")
	if lived := time.Since(began); lived < 2*time.Second-early() {
		t.Errorf("lasted %v", lived)
	}
}

func TestRefreshRestartsTheTime(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	for range 5 {
		c.bind("3", "D", "DP", "E")
		began := time.Now()
		time.Sleep(time.Second)
		c.save("1000", "E", "EP", p.near)
		if !c.tryDest("D", p) && time.Since(began) < 2*time.Second {
			t.Fatal("gone a second after its refresh")
		}
	}
	c.wantUnbound("D", "E")
}

func TestExpiredAndSavedAgainGoesLast(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	first, second := newPair(t), newPair(t)
	c.bind("1", "D", "A", "A")
	c.bind("1000", "D", "B", "B")
	c.wantUnbound("D", "A")
	c.bind("1000", "D", "A", "A")
	c.save("1000", "A", "EP", first.near)
	c.save("1000", "B", "EP", second.near)
	c.wantDest("D", "B", "EP", second)
	c.wantDest("D", "A", "EP", first)
}

// A binding and its like with another property have each their own time.
func TestBindingsExpireIndependently(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	c.bind("1", "D", "short", "E")
	c.bind("1000", "D", "long", "E")
	c.bind("1", "D2", "DP", "E")
	c.wantUnbound("D2", "E")
	eventually(t, func() error {
		c.save("1000", "E", "EP", p.near)
		c.send(findDest("D"))
		m := c.message()
		p.wantBack(t, c.take())
		if m[3] != "long" {
			return fmt.Errorf("found through %q", m[3])
		}
		return nil
	})
}

// A connection's time and its binding's have nothing to do with each other.
func TestConnectionExpiresBeforeItsBinding(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	short, long := newPair(t), newPair(t)
	c.bind("1000", "D", "DP", "E")
	c.save("1", "E", "short", short.near)
	c.save("1000", "E", "long", long.near)
	short.wantClosed(t)
	c.wantDest("D", "DP", "long", long)
	c.wantNoDest("D")
}

func TestFindExtendsNothing(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	c.bind("2", "D", "DP", "E")
	eventually(t, func() error {
		c.save("1000", "E", "EP", p.near)
		if c.tryDest("D", p) {
			return fmt.Errorf("a binding lives as long as it is looked up")
		}
		return nil
	})
}
