package server

import (
	"strconv"
	"time"

	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
	"github.com/scache/scache/timerwheel"
)

// list begins to list what is cached. Ages and times to live are those of now, for all of the list.
func (s *session) list(kind string) {
	walk, now := s.cache.store.Walk(), s.cache.now
	switch kind {
	case "connections":
		cost := connectionCost(s.cache.store.Size().Connections, s.cache.ttlLimit)
		s.beginList(func() bool { return s.listConnection(&walk, now, cost) })
	case "bindings":
		s.beginList(func() bool { return s.listBinding(&walk, now) })
	default:
		s.refuseAdmin("there is no list of %q, but of connections, and of bindings", kind)
	}
}

// beginList begins a reply of many messages. entry appends the next one, if it comes to one.
func (s *session) beginList(entry errand) {
	s.out = proto.AppendStatus(s.out, proto.OK)
	s.begin(func() bool {
		done := entry()
		if done {
			s.out = proto.AppendEnd(s.out)
		}
		return done
	})
}

// bindingCost is what a binding in a list is charged, in bindings, beyond a message, and so is less work:
// else a list would keep the others waiting for longer than what they ask for takes.
const bindingCost = (wakeBudget/8 - 1) * bindingsPerMessage

// connectionCost is bindingCost for a connection, about which the kernel is asked: so much that there is one in
// a wake, and so in a pause beside others. But a list should come to its end in half of
// connection_cache_ttl_limit, as what has expired meanwhile is not in it: for that there are up to four.
func connectionCost(connections, ttlLimit int) int {
	pauses := int(time.Duration(ttlLimit) * time.Second / 2 / errandPause)
	inWake := min(max(connections/pauses, 1), 4)
	return (wakeBudget/inWake - 1) * bindingsPerMessage
}

func (s *session) listConnection(walk *store.Walk, now timerwheel.Tick, cost int) (done bool) {
	c, more := s.cache.store.NextConnection(walk)
	if c != nil {
		s.cache.effort += cost
		r := reply{s.out}
		kind, remote := s.cache.describe(c.FD())
		r.text("connection", string(c.Endpoint()))
		r.text("property", string(c.Property()))
		r.times(now, c.Saved(), c.Deadline())
		r.text("kind", kind)
		r.text("remote", remote)
		r.number("uses", c.Returned())
		s.out = proto.AppendEnd(r.out)
	}
	return !more
}

func (s *session) listBinding(walk *store.Walk, now timerwheel.Tick) (done bool) {
	b, any, more := s.cache.store.NextBinding(walk)
	if any {
		s.cache.effort += bindingCost
		r := reply{s.out}
		r.text("binding", string(b.Destination))
		r.text("endpoint", string(b.Endpoint))
		r.text("property", string(b.Property))
		r.times(now, b.Saved(), b.Deadline)
		s.out = proto.AppendEnd(r.out)
	}
	return !more
}

func (r *reply) times(now, saved, deadline timerwheel.Tick) {
	r.number("age", int(now-min(saved, now)))
	r.number("remaining", int(max(deadline, now)-now))
}

// listDestinations lists what was looked up of late.
func (s *session) listDestinations() {
	place := 0
	s.beginList(func() bool {
		d, more := s.cache.activity.next(&place, s.cache.now)
		if d.told {
			bindings, connections := s.cache.store.Reach(d.label, reachLook)
			s.cache.effort += bindingCost + min(bindings, reachLook)
			r := reply{s.out}
			r.text("destination", string(d.label))
			r.text("hits", strconv.FormatFloat(d.hits, 'f', 1, 64))
			r.text("misses", strconv.FormatFloat(d.misses, 'f', 1, 64))
			r.number("bindings", bindings)
			r.number("connections", connections)
			s.out = proto.AppendEnd(r.out)
		}
		return !more
	})
}

// reachLook bounds how many of a destination's endpoints are looked at for their connections.
const reachLook = 4096
