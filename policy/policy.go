// Package policy is the table of rules that connection_cache_policy_file names: who
// may have what kept, how long, how many, in which order, and how it is closed.
//
//	# patterns                          options
//	host=*.mail.protection.outlook.com  keep=2 ttl=30s
//	destination=[relay.example.com]:587 handshake=quit
//	address=192.0.2.0/24,2001:db8::/32  cache=no
//	service=lmtp                        order=lifo
//	*                                   ttl=2s
//
// A rule is a line, or several of which the further ones begin with white space; a
// line that begins with # is a comment. A rule holds for what all its patterns match;
// of the rules that hold, the first one in the file counts. The manual page scache(8)
// explains the words.
//
// The package knows nothing of the cache: [Parse] makes rules of text, and
// [Policy.Match] finds the one for what a client saves.
package policy

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/scache/scache/internal/glob"
)

// Policy is a file of rules. It must be used by one goroutine at a time.
type Policy struct {
	File  string // its name, for messages
	Rules []Rule // in the order of the file

	hosts bool // a rule asks for the host
	seed  maphash.Seed
	seen  [maxSeen]sighting
}

// Rule is what a rule says of what it matches. What it leaves open is as for
// everything else.
type Rule struct {
	Number    int           // in Policy.Rules
	Line      int           // where it begins in the file, from 1 on
	Decline   bool          // cache=no: nothing is kept
	TTL       time.Duration // the longest time to live, whole seconds; 0: left open
	Keep      int           // connections per endpoint, or Unlimited; 0: left open
	Order     string        // fifo or lifo; empty: left open
	Handshake string        // none or quit; empty: left open

	conditions []condition
	text       string
}

// Unlimited is a Rule's Keep that is no limit, as in store.Terms.
const Unlimited = -1

// String returns the rule as it stands in the file, on one line.
func (r *Rule) String() string { return r.text }

// Explain says in words what the rule does.
func (r *Rule) Explain() string {
	var says []string
	add := func(format string, arguments ...any) { says = append(says, fmt.Sprintf(format, arguments...)) }
	switch {
	case r.Decline:
		add("not cached")
	case r.TTL == 0 && r.Keep == 0 && r.Order == "" && r.Handshake == "":
		add("cached as everything else")
	}
	if r.TTL > 0 {
		add("for %v at most", r.TTL)
	}
	switch {
	case r.Keep == Unlimited:
		add("any number of connections per endpoint")
	case r.Keep == 1:
		add("1 connection per endpoint at most")
	case r.Keep > 1:
		add("%d connections per endpoint at most", r.Keep)
	}
	switch r.Order {
	case "fifo":
		add("the oldest is used first")
	case "lifo":
		add("the newest is used first")
	}
	switch r.Handshake {
	case "none":
		add("closed without a word")
	case "quit":
		add("told QUIT when closed")
	}
	return strings.Join(says, ", ")
}

// Labels are what a client says of what it saves: the names and the property that the
// protocol has, byte for byte.
type Labels struct {
	Destination []byte // nil: saved without one
	Property    []byte // of the destination
	Endpoint    []byte
}

// maxSeen is how many labels of late the rule is known of. It costs 16 bytes each, and
// is a power of two.
const maxSeen = 1024

// sighting is a rule that was looked for: nil if there is none. Labels with the same
// hash of 64 bits, under a seed that nobody else knows, are the same for all purposes.
type sighting struct {
	hash uint64
	rule *Rule
}

// Match returns the first rule that matches, or nil. It asks all rules in turn, but
// for labels that were seen lately; nothing is allocated for those. steps is how many it
// took at most to compare texts with patterns.
func (p *Policy) Match(l Labels) (rule *Rule, steps int) {
	v := p.view(l)
	hash := p.hash(v) | 1 // not what an empty place has
	s := &p.seen[hash>>1%maxSeen]
	if s.hash != hash {
		rule, steps = p.search(v)
		*s = sighting{hash, rule}
	}
	return s.rule, steps
}

func (p *Policy) search(v view) (rule *Rule, steps int) {
	v.service, v.address = service(v.Endpoint), address(v.Endpoint)
	if hop := nextHop(v.Destination); len(hop) <= glob.MaxText {
		v.hop, v.bareHop = hop, bareHost(hop)
	}
	for i := range p.Rules {
		if p.Rules[i].matches(&v) {
			return &p.Rules[i], v.steps
		}
	}
	return nil, v.steps
}

func (r *Rule) matches(v *view) bool {
	return !slices.ContainsFunc(r.conditions, func(c condition) bool { return !c.matches(v) })
}

// view is what patterns look at.
type view struct {
	Labels
	host    []byte // nil: unknown, or no pattern asks for it
	service []byte // nil: unknown
	address netip.Addr

	hop, bareHop []byte // the next hop of Destination, and this without brackets and port; nil: too long, or none

	steps int // taken so far
}

func (v *view) match(g glob.Pattern, text []byte) bool {
	v.steps += g.Steps(text)
	return g.Match(text)
}

func (p *Policy) view(l Labels) view {
	v := view{Labels: l}
	if p.hosts {
		v.host = hostName(l.Property)
	}
	return v
}

func (p *Policy) hash(v view) (hash uint64) {
	for _, text := range [...][]byte{v.Destination, v.host, v.Endpoint} {
		hash *= 0x9e3779b97f4a7c15 // odd, so that nothing is lost; tells one place from another
		if text != nil {
			hash += maphash.Bytes(p.seed, text)
		}
	}
	return hash
}

// Warnings are what is not wrong, but hardly meant: times to live above ttlLimit,
// which is connection_cache_ttl_limit, and rules that nothing can reach.
func (p *Policy) Warnings(ttlLimit time.Duration) (warnings []string) {
	everything := 0 // the line of a rule that matches it
	for i := range p.Rules {
		r := &p.Rules[i]
		warn := func(format string, arguments ...any) {
			warnings = append(warnings, fmt.Sprintf("%s, line %d: ", p.File, r.Line)+fmt.Sprintf(format, arguments...))
		}
		if r.TTL > ttlLimit {
			warn("connection_cache_ttl_limit lowers ttl=%v to %v", r.TTL, ttlLimit)
		}
		if everything > 0 {
			warn("never used: line %d is for everything", everything)
		} else if len(r.conditions) == 0 {
			everything = r.Line
		}
	}
	return warnings
}
