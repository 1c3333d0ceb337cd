package server

import (
	"fmt"
	"math"

	"github.com/scache/scache/proto"
)

// limit is a bound that can be changed at run time.
type limit struct {
	name  string
	least int
	of    func(c *cache) *int
}

// limits have the names of the parameters that they are at the start.
var limits = []limit{
	{"connection_cache_ttl_limit", 1, func(c *cache) *int { return &c.ttlLimit }},
	{"connection_cache_size_limit", 0, func(c *cache) *int { return &c.limits.Connections }},
	{"connection_cache_endpoint_limit", 0, func(c *cache) *int { return &c.limits.PerEndpoint }},
	{"connection_cache_binding_limit", 1, func(c *cache) *int { return &c.limits.Bindings }},
	{"connection_cache_destination_limit", 1, func(c *cache) *int { return &c.limits.PerDestination }},
	{"connection_cache_text_limit", 1, func(c *cache) *int { return &c.limits.Text }},
	{"connection_cache_client_memory_limit", 1, func(c *cache) *int { return c.clientMemory }},
}

// appendLimits appends the reply that tells them.
func (c *cache) appendLimits(out []byte) []byte {
	r := reply{proto.AppendOK(out)}
	for _, l := range limits {
		r.number(l.name, *l.of(c))
	}
	return proto.AppendEnd(r.out)
}

// setLimit changes one. What has no room any longer leaves in the next turns.
func (c *cache) setLimit(name string, value int) error {
	for _, l := range limits {
		if l.name != name {
			continue
		}
		if value < l.least || value > math.MaxInt32 {
			return fmt.Errorf("%s: %d is not from %d to %d", name, value, l.least, math.MaxInt32)
		}
		*l.of(c) = value
		c.lower()
		return nil
	}
	return fmt.Errorf("there is no limit %q", name)
}

// lower puts the limits in force, in portions.
func (c *cache) lower() { c.lowering = c.store.Lower(c.bounded()) }

// dropsPerTurn bounds how long lower limits keep the clients waiting.
const dropsPerTurn = 64

// continueLowering does what is due in a turn.
func (s *Server) continueLowering() {
	for _, c := range s.caches {
		if c.lowering == nil {
			continue
		}
		relieved := s.relieve() // it may be connection_cache_client_memory_limit that was lowered
		if c.store.Continue(c.lowering, dropsPerTurn) && relieved {
			c.lowering = nil
		}
	}
}
