package server

import (
	"hash/crc32"
	"math"
	"time"

	"github.com/scache/scache/internal/handover"
	"github.com/scache/scache/policy"
	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
)

// terms are what a client's save is subject to: what a rule of the policy comes to, with this
// server's configuration in the place of what it leaves open.
type terms struct {
	line    int  // of the rule; 0: no rule
	decline bool // nothing is kept
	ttl     int  // seconds, at most
	quit    bool // say QUIT when it leaves the cache
	kept    *store.Terms
}

// judge finds the terms of what clients save. There is none without a policy.
type judge struct {
	policy *policy.Policy
	rules  []terms // by policy.Rule.Number
	others terms   // of what no rule matches

	inherited map[handover.Terms]*terms // those that a predecessor's policy made
}

func newJudge(config *Config) *judge {
	if config.Policy == nil {
		return nil
	}
	j := &judge{
		policy: config.Policy,
		others: terms{ttl: math.MaxInt, quit: config.Quit},

		inherited: make(map[handover.Terms]*terms),
	}
	for i := range config.Policy.Rules {
		j.rules = append(j.rules, newTerms(&config.Policy.Rules[i], config))
	}
	return j
}

func newTerms(r *policy.Rule, config *Config) terms {
	t := terms{
		line:    r.Line,
		decline: r.Decline,
		ttl:     math.MaxInt,
		quit:    config.Quit,
		kept:    &store.Terms{PerEndpoint: r.Keep, Order: config.Order},
	}
	if r.TTL > 0 {
		t.ttl = int(r.TTL / time.Second)
	}
	switch r.Order {
	case "fifo":
		t.kept.Order = store.OldestFirst
	case "lifo":
		t.kept.Order = store.NewestFirst
	}
	if r.Handshake != "" {
		t.quit = r.Handshake == "quit"
	}
	return t
}

// find returns the terms of what is saved under labels, and how many steps that took.
func (j *judge) find(l policy.Labels) (t *terms, steps int) {
	rule, steps := j.policy.Match(l)
	if rule == nil {
		return &j.others, steps
	}
	return &j.rules[rule.Number], steps
}

// hash takes four bytes of each client, where a label would take more. It needs no secret
// seed: what a client saves is compared with what the same client has saved.
// It is never 0, which is none.
func hash(label []byte) uint32 { return crc32.ChecksumIEEE(label) | 1 }

// govern finds the terms of a save, and returns its time to live, in seconds, as they allow.
//
// A connection says nothing of its destination. But smtp(8) binds the destination to the
// endpoint right before it saves the connection there: so that is under the terms of this
// binding (smtp/smtp_reuse.c, smtp_save_session).
func (s *session) govern(r *proto.Request) (ttl int) {
	switch {
	case s.cache.judge == nil:
		return r.TTL
	case r.Op == proto.SaveDestination:
		s.findTerms(policy.Labels{Destination: r.Destination, Property: r.DestinationProperty, Endpoint: r.Endpoint})
		s.bound = hash(r.Endpoint)
	case r.Op == proto.SaveEndpoint:
		if s.terms == nil || s.bound != hash(r.Endpoint) {
			s.findTerms(policy.Labels{Endpoint: r.Endpoint})
		}
		s.bound = 0
	default:
		s.bound = 0
		return r.TTL
	}
	// connection_cache_ttl_limit, which can be changed, goes before a rule that allows for more.
	if s.terms.ttl < s.cache.ttlLimit && r.TTL > s.terms.ttl {
		s.cache.stats.loweredByPolicy++
		return s.terms.ttl
	}
	return r.TTL
}

func (s *session) findTerms(l policy.Labels) {
	t, steps := s.cache.judge.find(l)
	s.terms = t
	s.cache.chargeMatch(steps)
}

// What is handed over from one process to the next stays under the terms that it has; only what
// is saved from then on is under the successor's policy.

// termsOf returns those of a connection that was saved; nil without a policy.
func (c *cache) termsOf(connection *store.Connection) *terms {
	if c.judge == nil || connection.FD() < 0 {
		return nil
	}
	return &terms{ttl: math.MaxInt, quit: c.watch.quit(connection.FD()), kept: connection.Terms()}
}

func (t *terms) record() *handover.Terms {
	if t == nil {
		return nil
	}
	r := &handover.Terms{Decline: t.decline, TTL: t.ttl, Quit: t.quit}
	if t.kept != nil {
		r.Governed, r.Keep, r.Order = true, t.kept.PerEndpoint, int(t.kept.Order)
	}
	return r
}

// inherit returns the terms that a predecessor speaks of. Without a policy here there are
// none; without one there, they are those that no rule is for.
func (j *judge) inherit(r *handover.Terms) *terms {
	switch {
	case j == nil:
		return nil
	case r == nil:
		return &j.others
	}
	t := j.inherited[*r]
	if t == nil {
		t = &terms{decline: r.Decline, ttl: r.TTL, quit: r.Quit}
		if r.Governed {
			t.kept = &store.Terms{PerEndpoint: r.Keep, Order: store.Order(r.Order)}
		}
		j.inherited[*r] = t
	}
	return t
}

// announce logs which policy there is, and what is odd about it.
func (j *judge) announce(log Logger, ttlLimit time.Duration) {
	if j == nil {
		return
	}
	log.Infof("policy %s: rules=%d", j.policy.File, len(j.rules))
	for _, w := range j.policy.Warnings(ttlLimit) {
		log.Warningf("%s", w)
	}
}
