package store

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// twin is the cache as the manual page describes it, written without caring for
// speed: everything in one list, in the order of saving.
type twin struct {
	limits      Limits
	order       Order
	terms       map[string]*Terms // by endpoint, as long as that exists
	now         Tick
	connections []twinConnection
	bindings    []twinBinding
}

type twinConnection struct {
	endpoint, property string
	fd                 int
	deadline           Tick
	serial             int
}

type twinBinding struct {
	destination, property, endpoint string
	deadline                        Tick
}

// saveDestination calls displaced when there is room for b.
func (w *twin) saveDestination(b twinBinding, displaced func()) {
	for i, old := range w.bindings {
		if old.destination == b.destination && old.property == b.property && old.endpoint == b.endpoint {
			w.bindings[i].deadline = b.deadline
			return
		}
	}
	mine := slices.IndexFunc(w.bindings, func(a twinBinding) bool { return a.destination == b.destination })
	if limit := w.limits.PerDestination; limit > 0 && w.count(b.destination) >= limit {
		w.bindings = slices.Delete(w.bindings, mine, mine+1)
	}
	if limit := w.limits.Bindings; limit > 0 && len(w.bindings) >= limit {
		w.dropSoonestBinding()
	}
	displaced()
	w.bindings = append(w.bindings, b)
}

func (w *twin) count(destination string) (n int) {
	for _, b := range w.bindings {
		if b.destination == destination {
			n++
		}
	}
	return n
}

func (w *twin) dropSoonestBinding() {
	i := soonest(w.bindings, func(b twinBinding) (Tick, bool) { return b.deadline, true })
	w.bindings = slices.Delete(w.bindings, i, i+1)
}

// soonest returns the index of what has the earliest deadline, or -1.
func soonest[T any](all []T, deadline func(T) (Tick, bool)) int {
	index, earliest := -1, Tick(0)
	for i, item := range all {
		if d, ok := deadline(item); ok && (index < 0 || d < earliest) {
			index, earliest = i, d
		}
	}
	return index
}

// evict makes room for a connection, and returns the descriptors that are closed.
func (w *twin) evict(endpoint string) (closed []int) {
	drop := func(i int) {
		closed = append(closed, w.connections[i].fd)
		w.connections = slices.Delete(w.connections, i, i+1)
	}
	for w.full(endpoint) {
		drop(soonest(w.connections, of(endpoint)))
	}
	for limit := w.limits.Connections; limit > 0 && len(w.connections) >= limit; {
		drop(soonest(w.connections, ofAll))
	}
	return closed
}

func of(endpoint string) func(twinConnection) (Tick, bool) {
	return func(c twinConnection) (Tick, bool) { return c.deadline, c.endpoint == endpoint }
}

func ofAll(c twinConnection) (Tick, bool) { return c.deadline, true }

// full reports whether an endpoint has no room for one more connection.
func (w *twin) full(endpoint string) bool {
	n := 0
	for _, c := range w.connections {
		if c.endpoint == endpoint {
			n++
		}
	}
	perEndpoint := w.limits.PerEndpoint
	if t := w.terms[endpoint]; t != nil && t.PerEndpoint != 0 {
		perEndpoint = t.PerEndpoint
	}
	return perEndpoint > 0 && n >= perEndpoint
}

// expiresFirst reports whether a connection would have to make room for itself.
func (w *twin) expiresFirst(c twinConnection) bool {
	before := func(of func(twinConnection) (Tick, bool)) bool {
		return c.deadline < w.connections[soonest(w.connections, of)].deadline
	}
	limit := w.limits.Connections
	return w.full(c.endpoint) && before(of(c.endpoint)) || limit > 0 && len(w.connections) >= limit && before(ofAll)
}

func (w *twin) orderOf(endpoint string) Order {
	if t := w.terms[endpoint]; t != nil {
		return t.Order
	}
	return w.order
}

func (w *twin) findEndpoint(endpoint string) (c twinConnection, ok bool) {
	connections := slices.All(w.connections)
	if w.orderOf(endpoint) == NewestFirst {
		connections = slices.Backward(w.connections)
	}
	for i, c := range connections {
		if c.endpoint == endpoint {
			w.connections = slices.Delete(w.connections, i, i+1)
			return c, true
		}
	}
	return c, false
}

func (w *twin) findDestination(destination string) (c twinConnection, property string, ok bool) {
	for _, b := range w.bindings {
		if b.destination == destination {
			if c, ok := w.findEndpoint(b.endpoint); ok {
				return c, b.property, true
			}
		}
	}
	return c, "", false
}

func (w *twin) insert(c twinConnection) {
	i, _ := slices.BinarySearchFunc(w.connections, c, func(a, b twinConnection) int { return a.serial - b.serial })
	w.connections = slices.Insert(w.connections, i, c)
}

// advance returns the descriptors that expire.
func (w *twin) advance(now Tick) (closed []int) {
	w.now = now
	for _, c := range w.connections {
		if c.deadline <= now {
			closed = append(closed, c.fd)
		}
	}
	w.connections = slices.DeleteFunc(w.connections, func(c twinConnection) bool { return c.deadline <= now })
	w.bindings = slices.DeleteFunc(w.bindings, func(b twinBinding) bool { return b.deadline <= now })
	return closed
}

func (w *twin) size() Size {
	destinations, endpoints := map[string]bool{}, map[string]bool{}
	for _, b := range w.bindings {
		destinations[b.destination] = true
	}
	for _, c := range w.connections {
		endpoints[c.endpoint] = true
	}
	return Size{Destinations: len(destinations), Bindings: len(w.bindings), Endpoints: len(endpoints), Connections: len(w.connections)}
}

// text counts the bytes of labels and properties; outside are the connections that
// are not in the store, whose texts are kept as well.
func (w *twin) text(outside []found) (n int) {
	endpoints, destinations := map[string]bool{}, map[string]bool{}
	for _, b := range w.bindings {
		n += len(b.property)
		destinations[b.destination], endpoints[b.endpoint] = true, true
	}
	connections := slices.Clone(w.connections)
	for _, f := range outside {
		connections = append(connections, f.twin)
	}
	for _, c := range connections {
		n += len(c.property)
		endpoints[c.endpoint] = true
	}
	for _, names := range []map[string]bool{endpoints, destinations} {
		for name := range names {
			n += len(name)
		}
	}
	return n
}

func (w *twin) next() (next Tick, ok bool) {
	for _, c := range w.connections {
		if !ok || c.deadline < next {
			next, ok = c.deadline, true
		}
	}
	for _, b := range w.bindings {
		if !ok || b.deadline < next {
			next, ok = b.deadline, true
		}
	}
	return next, ok
}

// machine drives a store and its twin, and keeps account of every descriptor.
type machine struct {
	store  *Store
	twin   twin
	closed []int  // by the store, since last looked at
	why    Reason // of the last one
	used   map[Tick]bool
	inside map[int]bool // descriptors that were saved and have not left
	found  []found      // outside, not yet released or put back
	serial int
}

type found struct {
	c    *Connection
	twin twinConnection
}

func newMachine(t *rapid.T) *machine {
	m := &machine{inside: map[int]bool{}, used: map[Tick]bool{}}
	m.store = New(func(fd int, why Reason) {
		m.leaves(t, fd)
		m.closed = append(m.closed, fd)
		m.why = why
	})
	limit := rapid.SampledFrom([]int{0, 0, 1, 2, 5})
	m.twin.limits = Limits{
		Connections:    limit.Draw(t, "limit"),
		PerEndpoint:    limit.Draw(t, "limit per endpoint"),
		Bindings:       limit.Draw(t, "limit of bindings"),
		PerDestination: limit.Draw(t, "limit per destination"),
	}
	m.twin.order = rapid.SampledFrom([]Order{OldestFirst, NewestFirst}).Draw(t, "order")
	m.store.Limits, m.store.Order = m.twin.limits, m.twin.order
	m.twin.terms = map[string]*Terms{}
	return m
}

// leaves holds the law: every descriptor saved leaves exactly once.
func (m *machine) leaves(t *rapid.T, fd int) {
	if !m.inside[fd] {
		t.Fatalf("descriptor %d left, but was not in the store", fd)
	}
	delete(m.inside, fd)
}

func (m *machine) takeClosed() []int {
	closed := m.closed
	m.closed = nil
	slices.Sort(closed)
	return closed
}

var (
	aName     = rapid.SampledFrom([]string{"", "a", "b", "smtp\nexample.com\n25\n"})
	aProperty = rapid.SampledFrom([]string{"", "p", "q\nr"})
	someTerms = rapid.SampledFrom([]*Terms{nil, {}, {Order: NewestFirst}, {PerEndpoint: 1}, {PerEndpoint: 3, Order: NewestFirst}, {PerEndpoint: -1}})
)

// deadline draws a deadline that nothing else has, so that there is one that is first.
func (m *machine) deadline(t *rapid.T) Tick {
	deadline := m.twin.now + Tick(rapid.IntRange(1, 100).Draw(t, "ttl"))
	for m.used[deadline] {
		deadline++
	}
	m.used[deadline] = true
	return deadline
}

func (m *machine) saveEndpoint(t *rapid.T) {
	c := twinConnection{aName.Draw(t, "endpoint"), aProperty.Draw(t, "property"), 0, m.deadline(t), 0}
	m.serial++
	c.fd, c.serial = m.lowestFD(), m.serial
	prepared := m.store.Prepare([]byte(c.endpoint), []byte(c.property))
	if rapid.Bool().Draw(t, "govern") {
		m.twin.terms[c.endpoint] = someTerms.Draw(t, "terms")
		m.store.Govern(prepared, m.twin.terms[c.endpoint])
	}
	m.store.Save(prepared, c.fd, c.deadline)
	want := m.twin.evict(c.endpoint)
	slices.Sort(want)
	if closed := m.takeClosed(); !slices.Equal(closed, want) || len(closed) > 0 && m.why != Evicted {
		t.Fatalf("evicted %v, want %v (%v)", closed, want, m.why)
	}
	m.inside[c.fd] = true
	m.twin.insert(c)
}

// lowestFD returns the lowest number that is free, as the kernel does.
func (m *machine) lowestFD() int {
	for fd := 3; ; fd++ {
		outside := slices.ContainsFunc(m.found, func(f found) bool { return f.twin.fd == fd })
		if !m.inside[fd] && !outside {
			return fd
		}
	}
}

// remove ends a connection that is in the store, and could have been found.
func (m *machine) remove(t *rapid.T) {
	name := aName.Draw(t, "endpoint")
	e := m.store.lookupEndpoint([]byte(name))
	want, ok := m.twin.findEndpoint(name)
	if !ok {
		t.Skip("nothing to remove")
	}
	c := e.oldest
	if m.twin.orderOf(name) == NewestFirst {
		c = e.newest
	}
	m.store.Remove(c, HungUp)
	if closed := m.takeClosed(); !slices.Equal(closed, []int{want.fd}) || m.why != HungUp {
		t.Fatalf("closed %v, want %d (%v)", closed, want.fd, m.why)
	}
}

// abandonSave is a client that vanishes before it sends the descriptor.
func (m *machine) abandonSave(t *rapid.T) {
	m.store.Release(m.store.Prepare([]byte(aName.Draw(t, "endpoint")), []byte("unused")))
}

// decline is a connection that is not to be cached.
func (m *machine) decline(t *rapid.T) {
	m.serial++
	fd := 1000 + m.serial
	m.inside[fd] = true
	m.store.Decline(m.store.Prepare([]byte(aName.Draw(t, "endpoint")), []byte("declined")), fd)
	if closed := m.takeClosed(); !slices.Equal(closed, []int{fd}) || m.why != Declined {
		t.Fatalf("closed %v, want %d (%v)", closed, fd, m.why)
	}
}

func (m *machine) saveDestination(t *rapid.T) {
	b := twinBinding{aName.Draw(t, "destination"), aProperty.Draw(t, "property"), aName.Draw(t, "endpoint"), m.deadline(t)}
	m.store.SaveDestination([]byte(b.destination), []byte(b.property), []byte(b.endpoint), b.deadline)
	m.twin.saveDestination(b, m.forgetTerms)
}

func (m *machine) findEndpoint(t *rapid.T) {
	name := aName.Draw(t, "endpoint")
	c := m.store.FindEndpoint([]byte(name))
	want, ok := m.twin.findEndpoint(name)
	m.compareFound(t, c, want, ok)
}

func (m *machine) findDestination(t *rapid.T) {
	name := aName.Draw(t, "destination")
	c, property := m.store.FindDestination([]byte(name))
	want, wantProperty, ok := m.twin.findDestination(name)
	if string(property) != wantProperty {
		t.Fatalf("property %q, want %q", property, wantProperty)
	}
	m.compareFound(t, c, want, ok)
}

func (m *machine) compareFound(t *rapid.T, c *Connection, want twinConnection, ok bool) {
	if (c != nil) != ok {
		t.Fatalf("found %v, want %v", c != nil, ok)
	}
	if c == nil {
		return
	}
	if c.FD() != want.fd || string(c.Property()) != want.property {
		t.Fatalf("found %d %q, want %d %q", c.FD(), c.Property(), want.fd, want.property)
	}
	m.leaves(t, c.FD())
	m.found = append(m.found, found{c, want})
}

// takeFound picks one of the connections that are outside, at random.
func (m *machine) takeFound(t *rapid.T) found {
	if len(m.found) == 0 {
		t.Skip("nothing is outside")
	}
	i := rapid.IntRange(0, len(m.found)-1).Draw(t, "found")
	f := m.found[i]
	m.found = slices.Delete(m.found, i, i+1)
	return f
}

func (m *machine) release(t *rapid.T) { m.store.Release(m.takeFound(t).c) }

func (m *machine) putBack(t *rapid.T) {
	f := m.takeFound(t)
	m.inside[f.twin.fd] = true
	kept := m.store.PutBack(f.c)
	var want []int
	switch {
	case f.twin.deadline <= m.twin.now, m.twin.expiresFirst(f.twin):
		want = []int{f.twin.fd}
	default:
		want = m.twin.evict(f.twin.endpoint)
		slices.Sort(want)
		m.twin.insert(f.twin)
	}
	if closed := m.takeClosed(); !slices.Equal(closed, want) || kept == slices.Contains(want, f.twin.fd) {
		t.Fatalf("closed %v, want %v; kept: %v", closed, want, kept)
	}
}

func (m *machine) advance(t *rapid.T) {
	m.advanceTo(t, m.twin.now+Tick(rapid.IntRange(0, 70).Draw(t, "by")))
}

func (m *machine) advanceTo(t *rapid.T, now Tick) {
	m.store.Advance(now)
	want := m.twin.advance(now)
	slices.Sort(want)
	if closed := m.takeClosed(); !slices.Equal(closed, want) {
		t.Fatalf("expired %v, want %v", closed, want)
	}
}

// referenced tells whether a connection or a binding refers to an endpoint.
func (m *machine) referenced(endpoint string) bool {
	return slices.ContainsFunc(m.twin.connections, func(c twinConnection) bool { return c.endpoint == endpoint }) ||
		slices.ContainsFunc(m.twin.bindings, func(b twinBinding) bool { return b.endpoint == endpoint }) ||
		slices.ContainsFunc(m.found, func(f found) bool { return f.twin.endpoint == endpoint })
}

// forgetTerms ends the terms of endpoints that have ended.
func (m *machine) forgetTerms() {
	maps.DeleteFunc(m.twin.terms, func(endpoint string, _ *Terms) bool { return !m.referenced(endpoint) })
}

func (m *machine) check(t *rapid.T) {
	m.forgetTerms()
	want := m.twin.size()
	want.Text = m.twin.text(m.found)
	if got := m.store.Size(); got != want {
		t.Fatalf("Size() = %+v, want %+v", got, want)
	}
	if len(m.inside) != m.store.Size().Connections {
		t.Fatalf("%d descriptors are inside, the store has %d", len(m.inside), m.store.Size().Connections)
	}
	next, ok := m.store.Next()
	earliest, any := m.twin.next()
	if ok != any || ok && next > earliest {
		t.Fatalf("Next() = %d, %v, want at most %d, %v", next, ok, earliest, any)
	}
}

func TestStoreAgreesWithTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		actions := m.actions()
		actions["decline"] = m.decline
		actions[""] = m.check
		t.Repeat(actions)
		for len(m.found) > 0 {
			m.putBack(t)
		}
		if rapid.Bool().Draw(t, "clear") {
			m.store.Clear()
		} else {
			m.advanceTo(t, m.twin.now+1000)
		}
		m.twin = twin{}
		m.check(t)
		for range m.store.endpoints.all() {
			t.Fatal("the name of an endpoint remains")
		}
		for range m.store.destinations.all() {
			t.Fatal("the name of a destination remains")
		}
		for range m.store.bindings.all() {
			t.Fatal("a binding remains")
		}
	})
}

// A name that is used again has no terms of old.
func TestTermsEndWithTheEndpoint(t *testing.T) {
	s := New(func(int, Reason) {})
	for _, terms := range []*Terms{{PerEndpoint: 1}, nil} {
		for n := range 2 {
			c := s.Prepare([]byte("e"), nil)
			if terms != nil {
				s.Govern(c, terms)
			}
			s.Save(c, n, Tick(n+1))
		}
		if want := map[bool]int{true: 1, false: 2}[terms != nil]; s.Size().Connections != want {
			t.Errorf("%d connections under %v, want %d", s.Size().Connections, terms, want)
		}
		s.Clear()
	}
}

// A binding that is refreshed goes when it has to, and not when it would have before.
func TestRefreshedBindingExpires(t *testing.T) {
	s := New(func(int, Reason) {})
	for _, deadline := range []Tick{10, 20} {
		s.SaveDestination([]byte("d"), nil, []byte("e"), deadline)
	}
	for _, test := range []struct {
		now  Tick
		want int
	}{{10, 1}, {20, 0}} {
		s.Advance(test.now)
		next, due := s.Next()
		if have := s.Size().Bindings; have != test.want || due != (test.want > 0) || due && next > 20 {
			t.Errorf("at %d: %d bindings, want %d; due at %d, %v", test.now, have, test.want, next, due)
		}
	}
}

// actions are what can be done to a store.
func (m *machine) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"saveEndpoint":    m.saveEndpoint,
		"abandonSave":     m.abandonSave,
		"saveDestination": m.saveDestination,
		"findEndpoint":    m.findEndpoint,
		"findDestination": m.findDestination,
		"release":         m.release,
		"remove":          m.remove,
		"putBack":         m.putBack,
		"advance":         m.advance,
	}
}

// Over the limit of texts what expires first goes, connection or binding; what has
// no room at all is refused.
func TestTextLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(func(fd int, why Reason) {
			if why != Evicted {
				t.Fatalf("%d was closed: %v", fd, why)
			}
		})
		s.Limits.Text = rapid.IntRange(1, 200).Draw(t, "limit")
		text := rapid.SliceOfN(rapid.Byte(), 0, 100)
		t.Repeat(map[string]func(*rapid.T){
			"connection": func(t *rapid.T) {
				label, property := text.Draw(t, "endpoint"), text.Draw(t, "property")
				c := s.Prepare(label, property)
				if fits := len(label)+len(property) <= s.Limits.Text; fits != (c != nil) {
					t.Fatalf("prepared: %v, fits: %v", c != nil, fits)
				}
				if c != nil {
					s.Save(c, 5, Tick(rapid.IntRange(1, 100).Draw(t, "deadline")))
				}
			},
			"binding": func(t *rapid.T) {
				d, p, e := text.Draw(t, "destination"), text.Draw(t, "property"), text.Draw(t, "endpoint")
				fits := len(d)+len(p)+len(e) <= s.Limits.Text
				if s.SaveDestination(d, p, e, Tick(rapid.IntRange(1, 100).Draw(t, "deadline"))) != fits {
					t.Fatalf("saved: %v", !fits)
				}
			},
			"": func(t *rapid.T) {
				if s.Size().Text > s.Limits.Text {
					t.Fatalf("%+v is more than %d", s.Size(), s.Limits.Text)
				}
			},
		})
	})
}

func TestNothingIsAllocatedInTheSteadyState(t *testing.T) {
	s := New(func(int, Reason) {})
	var labels [64][]byte
	for i := range labels {
		labels[i] = fmt.Appendf(nil, "smtp\n192.0.2.%d\n25\n", i)
	}
	destination, property := []byte("smtp\nexample.com\n25\n"), make([]byte, 200)
	now := Tick(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += 10
		s.Advance(now)
		for _, label := range labels {
			s.SaveDestination(destination, property, label, now+25)
			s.Save(s.Prepare(label, property), 5, now+15)
			s.Save(s.Prepare(label, property), 6, now+1000)
		}
		for range labels {
			c, _ := s.FindDestination(destination)
			s.Release(c)
		}
		for _, label := range labels {
			if c := s.FindEndpoint(label); c != nil {
				s.Release(c)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkSaveFind(b *testing.B) {
	for _, cached := range []int{0, 15_000, 100_000} {
		b.Run(fmt.Sprintf("cached=%d", cached), func(b *testing.B) {
			s := New(func(int, Reason) {})
			label := func(i int) []byte { return fmt.Appendf(nil, "smtp\n192.0.2.1\n%d\n", i) }
			property := make([]byte, 200)
			for i := range cached {
				s.Save(s.Prepare(label(i), property), i, Tick(i+1000))
			}
			mine := label(-1)
			b.ReportAllocs()
			for b.Loop() {
				s.Save(s.Prepare(mine, property), 5, 1500)
				s.Release(s.FindEndpoint(mine))
			}
		})
	}
}

func BenchmarkRefresh(b *testing.B) {
	for _, bound := range []int{1, 20_000, 1_000_000} {
		b.Run(fmt.Sprintf("bound=%d", bound), func(b *testing.B) {
			s := New(func(int, Reason) {})
			destination, property := []byte("smtp\nexample.com\n25\n"), make([]byte, 20)
			var label []byte
			refresh := func(i int) {
				label = fmt.Appendf(label[:0], "smtp\n192.0.2.1\n%d\n", i)
				s.SaveDestination(destination, property, label, Tick(1000+i))
			}
			for i := range bound {
				refresh(i)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				refresh(i % bound)
				i += 7919
			}
		})
	}
}
