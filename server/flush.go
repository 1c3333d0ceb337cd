package server

import (
	"github.com/scache/scache/internal/glob"
	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
)

// flushing drops what is cached, of what there was when it began.
type flushing struct {
	session               *session
	label                 []byte
	walk                  store.Walk // tells what there was
	bindingWalk           store.Walk
	connections, bindings int // dropped
}

// flush begins to drop what the subject and the value say.
func (s *session) flush(what, value string) {
	f := &flushing{session: s, label: []byte(value), walk: s.cache.store.Walk(), bindingWalk: s.cache.store.Walk()}
	var next errand
	switch what {
	case "all":
		next = func() bool { return f.matching(func([]byte) bool { return true }) }
	case "endpoint":
		next = f.endpoint
	case "destination":
		next = f.destination
	case "pattern":
		if len(value) > glob.MaxText {
			s.refuseAdmin("the pattern has %d bytes, but %d are the most", len(value), glob.MaxText)
			return
		}
		pattern := glob.New(value)
		matches := func(label []byte) bool {
			s.cache.chargeMatch(pattern.Steps(label))
			return pattern.Match(label)
		}
		next = func() bool { return f.matching(matches) }
	default:
		s.refuseAdmin("cannot flush %q, but all, endpoint, destination, pattern", what)
		return
	}
	s.begin(func() bool {
		if !next() {
			return false
		}
		f.report(what)
		return true
	})
}

func (f *flushing) report(what string) {
	s := f.session
	s.note("flushed %s %q: connections=%d bindings=%d", what, beginning(f.label), f.connections, f.bindings)
	r := reply{proto.AppendOK(s.out)}
	r.number("connections", f.connections)
	r.number("bindings", f.bindings)
	s.out = proto.AppendEnd(r.out)
}

// matching goes through all connections, and then through all bindings.
func (f *flushing) matching(match func(label []byte) bool) (done bool) {
	stored := f.session.cache.store
	c, more := stored.NextConnection(&f.walk)
	if c != nil && match(c.Endpoint()) {
		f.close(c)
	}
	if more {
		return false
	}
	b, any, more := stored.NextBinding(&f.bindingWalk)
	if any && (match(b.Destination) || match(b.Endpoint)) {
		f.drop(b)
	}
	return !more
}

func (f *flushing) endpoint() (done bool) {
	c := f.session.cache.store.Oldest(f.label)
	if c == nil || f.walk.Precedes(c.Serial()) {
		return true
	}
	f.close(c)
	return false
}

// destination drops the first binding when its endpoint has no connection any longer, and goes
// on with the one that is the first then.
func (f *flushing) destination() (done bool) {
	b, ok := f.session.cache.store.FirstBinding(f.label)
	if !ok || f.walk.Precedes(b.Serial) {
		return true
	}
	if c := b.Oldest(); c != nil && !f.walk.Precedes(c.Serial()) {
		f.close(c)
	} else {
		f.drop(b)
	}
	return false
}

func (f *flushing) close(c *store.Connection) {
	f.connections++
	f.session.cache.store.Remove(c, store.Flushed)
}

func (f *flushing) drop(b store.Binding) {
	f.bindings++
	f.session.cache.counters.flushedBindings++
	f.session.cache.store.DropBinding(b)
}
