package store

import "math"

// A Lowering puts limits in force that are lower than what is stored: in portions, so
// that nobody has to wait for thousands that leave. What is saved meanwhile makes it no longer: the
// limits follow what leaves.
type Lowering struct {
	wanted      Limits
	connections Walk // to find endpoints with too many
	bindings    Walk // to find destinations with too many
}

// everything is a walk that visits what is saved later, too.
var everything = Walk{last: math.MaxUint64}

// Lower begins to put limits in force, be they lower or not.
func (s *Store) Lower(wanted Limits) *Lowering {
	s.Limits.PerEndpoint, s.Limits.PerDestination = wanted.PerEndpoint, wanted.PerDestination
	return &Lowering{wanted: wanted, connections: everything, bindings: everything}
}

// Continue drops at most n of what the limits leave no room for, what would expire first
// before others. It returns true when they are in force.
func (s *Store) Continue(l *Lowering, n int) (done bool) {
	for ; n > 0 && over(l.wanted.Connections, s.size.Connections); n-- {
		s.Evict()
	}
	for ; n > 0 && over(l.wanted.Bindings, s.size.Bindings); n-- {
		b, _ := s.soonestBinding()
		s.displace(b)
	}
	for ; n > 0 && over(l.wanted.Text, s.size.Text); n-- {
		if !s.dropSoonest() { // the rest is of connections that are outside
			break
		}
	}
	s.Limits.Connections = approached(l.wanted.Connections, s.size.Connections)
	s.Limits.Bindings = approached(l.wanted.Bindings, s.size.Bindings)
	s.Limits.Text = approached(l.wanted.Text, s.size.Text)
	if n == 0 || !thin(l.wanted.PerEndpoint, &l.connections, &n, s.crowdedEndpoint) ||
		!thin(l.wanted.PerDestination, &l.bindings, &n, s.crowdedDestination) {
		return false
	}
	s.Limits = l.wanted
	return true
}

func over(limit, have int) bool { return limit > 0 && have > limit }

// approached is the limit to be in force as long as there is more than the wanted one allows.
func approached(wanted, have int) int {
	if wanted == 0 {
		return 0
	}
	return max(wanted, have)
}

// crowdedEndpoint returns the number of connections of the next endpoint, and how to make it less;
// neither if it has a limit of its own.
func (s *Store) crowdedEndpoint(w *Walk) (have func() int, drop func(), more bool) {
	c, more := s.NextConnection(w)
	if c == nil {
		return nil, nil, more
	}
	e := c.endpoint
	if e.terms != nil && e.terms.PerEndpoint != 0 {
		return nil, nil, true
	}
	return func() int { return int(e.connections) }, func() { s.evict(e.soonest()) }, true
}

// crowdedDestination is crowdedEndpoint for the bindings of destinations.
func (s *Store) crowdedDestination(w *Walk) (have func() int, drop func(), more bool) {
	b, any, more := s.NextBinding(w)
	if !any {
		return nil, nil, more
	}
	d := b.of.destination
	return func() int { return d.bindings }, func() { s.displace(d.first) }, true
}

// thin goes on with a walk for n looks at most, and drops at most n of what is above a limit.
func thin(limit int, w *Walk, n *int, next func(*Walk) (have func() int, drop func(), more bool)) (done bool) {
	if limit == 0 {
		return true
	}
	for looks := *n; looks > 0; looks-- {
		before := *w
		have, drop, more := next(w)
		if !more {
			return true
		}
		for have != nil && have() > limit {
			if *n == 0 {
				*w = before // there may be none behind it
				return false
			}
			drop()
			*n--
		}
	}
	return false
}
