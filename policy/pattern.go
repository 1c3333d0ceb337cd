package policy

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"github.com/scache/scache/internal/glob"
)

// A condition is NAME=PATTERN,PATTERN... of a rule: one of the patterns has to match.
type condition interface{ matches(v *view) bool }

// conditions are made of the patterns behind their names.
var conditions = map[string]func(patterns []string) (condition, error){
	"service":     globs(func(g glob.Pattern, v *view) bool { return v.service != nil && v.match(g, v.service) }),
	"destination": globs(matchDestination),
	"host":        globs(func(g glob.Pattern, v *view) bool { return v.host != nil && v.match(g, v.host) }),
	"address":     newNetworks,
	"endpoint":    globs(func(g glob.Pattern, v *view) bool { return v.match(g, v.Endpoint) }),
}

// globs returns what makes conditions of globs.
func globs(match func(glob.Pattern, *view) bool) func([]string) (condition, error) {
	return func(patterns []string) (condition, error) {
		c := anyGlob{match: match}
		for _, pattern := range patterns {
			g, err := glob.Parse(pattern)
			if err != nil {
				return nil, err
			}
			c.globs = append(c.globs, g)
		}
		return c, nil
	}
}

type anyGlob struct {
	globs []glob.Pattern
	match func(glob.Pattern, *view) bool
}

func (c anyGlob) matches(v *view) bool {
	return slices.ContainsFunc(c.globs, func(g glob.Pattern) bool { return c.match(g, v) })
}

// matchDestination compares with the whole label if the glob has a newline, else with
// the next hop, which may stand without its brackets and port.
func matchDestination(g glob.Pattern, v *view) bool {
	if g.Contains('\n') {
		return v.match(g, v.Destination)
	}
	return v.hop != nil && (v.match(g, v.hop) || v.match(g, v.bareHop))
}

// networks match the address of an endpoint.
type networks []netip.Prefix

func newNetworks(patterns []string) (condition, error) {
	var all networks
	for _, pattern := range patterns {
		network, err := parseNetwork(pattern)
		if err != nil {
			return nil, err
		}
		all = append(all, network)
	}
	return all, nil
}

// mappedBits stand in front of an IPv4 address that is written as one of IPv6 (RFC 4291, section
// 2.5.5.2).
const mappedBits = 96

func parseNetwork(pattern string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(pattern); err == nil && a.Zone() == "" {
		a = a.Unmap() // as those that it is compared with
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	network, err := netip.ParsePrefix(pattern)
	if a := network.Addr(); a.Is4In6() && network.Bits() >= mappedBits {
		network = netip.PrefixFrom(a.Unmap(), network.Bits()-mappedBits)
	}
	switch {
	case err != nil:
		return network, fmt.Errorf("%s is no address, and no network such as 192.0.2.0/24", pattern)
	case network != network.Masked():
		return network, fmt.Errorf("%s has bits behind the first %d: is %v meant?", pattern, network.Bits(), network.Masked())
	}
	return network, nil
}

func (n networks) matches(v *view) bool {
	v.steps += len(n)
	return slices.ContainsFunc(n, func(network netip.Prefix) bool { return network.Contains(v.address) })
}

// The labels of smtp(8) are fields with a newline behind each (smtp/smtp_key.c,
// smtp_key_prefix): of a destination the service, the sender if there are passwords
// for senders, the next hop, and what kind of session it is: since Postfix 3.10 the level
// of TLS, in 3.11 two more; of an endpoint the service, what passwords and certificates
// are chosen by, the address, the port, and the kind of session. Each of these kinds is
// a number, or * where smtp(8) was built without TLS.

// service is the first of several fields, or nil.
func service(label []byte) []byte {
	first, _, several := bytes.Cut(label, newline)
	if !several {
		return nil
	}
	return first
}

// maxKinds is how many fields of a destination's label may say what kind of session it is.
const maxKinds = 3

// nextHop is the last field of a destination's label but for those of the kind of session,
// which can only stand behind a service and a next hop.
func nextHop(label []byte) []byte {
	label = bytes.TrimSuffix(label, newline)
	if _, behindService, several := bytes.Cut(label, newline); several {
		label = behindService
	}
	for kinds := 0; ; kinds++ {
		last := bytes.LastIndexByte(label, '\n')
		field := label[last+1:]
		if last < 0 || kinds == maxKinds || !isKind(field) {
			return field
		}
		label = label[:last]
	}
}

func isKind(field []byte) bool {
	return len(bytes.Trim(field, "0123456789")) == 0 && len(field) > 0 || string(field) == "*"
}

// address is the last of the fields that is one; there may be none.
func address(endpoint []byte) (none netip.Addr) {
	for len(endpoint) > 0 && len(endpoint) <= glob.MaxText {
		last := bytes.LastIndexByte(endpoint, '\n')
		if a, err := netip.ParseAddr(string(endpoint[last+1:])); err == nil {
			return a.Unmap().WithZone("")
		}
		endpoint = endpoint[:max(last, 0)]
	}
	return none
}

// bareHost takes the brackets off a next hop, and the port (smtp/smtp_connect.c,
// smtp_parse_destination).
func bareHost(hop []byte) []byte {
	if len(hop) > 0 && hop[0] == '[' {
		if end := bytes.IndexByte(hop, ']'); end > 0 {
			return hop[1:end]
		}
	}
	if colon := bytes.IndexByte(hop, ':'); colon > 0 && !bytes.ContainsAny(hop[colon+1:], ":/") {
		return hop[:colon]
	}
	return hop
}

// hostName is the name of the host that smtp(8) is connected to: a line of the
// destination's property (smtp/smtp_session.c, smtp_session_passivate). It is nil if
// there is none in the first glob.MaxText bytes.
func hostName(property []byte) []byte {
	seen := property[:min(len(property), glob.MaxText)]
	for rest := seen; len(rest) > 0; {
		line, behind, ended := bytes.Cut(rest, newline)
		if name, ok := bytes.CutPrefix(line, hostNameIs); ok && (ended || len(seen) == len(property)) {
			return name
		}
		rest = behind
	}
	return nil
}

var (
	newline    = []byte("\n")
	hostNameIs = []byte("host_name=")
)
