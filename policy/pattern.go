package policy

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A condition is NAME=PATTERN,PATTERN... of a rule: one of the patterns has to match.
type condition interface{ matches(v view) bool }

// conditions are made of the patterns behind their names.
var conditions = map[string]func(patterns []string) (condition, error){
	"service":     globs(func(g glob, v view) bool { return v.service != nil && g.match(v.service) }),
	"destination": globs(matchDestination),
	"host":        globs(func(g glob, v view) bool { return v.host != nil && g.match(v.host) }),
	"address":     newNetworks,
	"endpoint":    globs(func(g glob, v view) bool { return g.match(v.Endpoint) }),
}

// globs returns what makes conditions of globs.
func globs(match func(glob, view) bool) func([]string) (condition, error) {
	return func(patterns []string) (condition, error) {
		c := anyGlob{match: match}
		for _, pattern := range patterns {
			g, err := parseGlob(pattern)
			if err != nil {
				return nil, err
			}
			c.globs = append(c.globs, g)
		}
		return c, nil
	}
}

type anyGlob struct {
	globs []glob
	match func(glob, view) bool
}

func (c anyGlob) matches(v view) bool {
	return slices.ContainsFunc(c.globs, func(g glob) bool { return c.match(g, v) })
}

// matchDestination compares with the whole label if the glob has a newline, else with
// the next hop, which may stand without its brackets and port.
func matchDestination(g glob, v view) bool {
	if v.Destination == nil {
		return false
	}
	if bytes.ContainsRune(g.literals, '\n') {
		return g.match(v.Destination)
	}
	return v.hop != nil && (g.match(v.hop) || g.match(v.bareHop))
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

func parseNetwork(pattern string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(pattern); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	network, err := netip.ParsePrefix(pattern)
	switch {
	case err != nil:
		return network, fmt.Errorf("%s is no address, and no network such as 192.0.2.0/24", pattern)
	case network != network.Masked():
		return network, fmt.Errorf("%s has bits behind the first %d: is %v meant?", pattern, network.Bits(), network.Masked())
	}
	return network, nil
}

func (n networks) matches(v view) bool {
	return slices.ContainsFunc(n, func(network netip.Prefix) bool { return network.Contains(v.address) })
}

// The labels of smtp(8) are fields with a newline behind each (smtp/smtp_key.c,
// smtp_key_prefix): of a destination the service, the sender if there are passwords
// for senders, the next hop, and what kind of session it is: since Postfix 3.10 the level
// of TLS, in 3.11 two more; of an endpoint the service, what passwords and certificates
// are chosen by, the address, the port, and the kind of session. Each of these kinds is
// a number, or * where smtp(8) was built without TLS.

// maxText bounds the texts that patterns are compared with. What is longer is not smtp(8)'s,
// and matches no pattern.
const maxText = 1024

// service is the first of several fields, or nil.
func service(label []byte) []byte {
	first, _, several := bytes.Cut(label, newline)
	if !several {
		return nil
	}
	return first
}

func lastField(label []byte) []byte {
	label = bytes.TrimSuffix(label, newline)
	return label[bytes.LastIndexByte(label, '\n')+1:]
}

// nextHop is the last field of a destination's label but for those of the kind of session,
// which can only stand behind a service and a next hop. Each byte is looked at once: a
// client may send millions of such fields.
func nextHop(label []byte) []byte {
	label = bytes.TrimSuffix(label, newline)
	if _, behindService, several := bytes.Cut(label, newline); several {
		label = behindService
	}
	for {
		last := bytes.LastIndexByte(label, '\n')
		field := label[last+1:]
		if last < 0 || !isKind(field) {
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
	for len(endpoint) > 0 && len(endpoint) <= maxText {
		field := lastField(endpoint)
		endpoint = endpoint[:len(bytes.TrimSuffix(endpoint, newline))-len(field)]
		if a, err := netip.ParseAddr(string(field)); err == nil {
			return a.Unmap().WithZone("")
		}
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
// there is none in the first maxText bytes.
func hostName(property []byte) []byte {
	seen := property[:min(len(property), maxText)]
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

// A glob is text with wildcards: * is any text, also none, and ? any byte. Upper and
// lower case are the same.
type glob struct {
	literals []byte // in lower case; what stands for a wildcard has no meaning
	wild     []byte // for each: 0, '*' or '?'
}

// parseGlob reads a glob; a backslash takes the meaning from *, ? and itself, and \n
// is a newline.
func parseGlob(pattern string) (g glob, err error) {
	for i := 0; i < len(pattern); i++ {
		literal, wild := lower(pattern[i]), byte(0)
		switch literal {
		case '*', '?':
			wild = literal
		case '\\':
			if i++; i == len(pattern) || !strings.ContainsRune(`n*?\`, rune(pattern[i])) {
				return g, fmt.Errorf(`%s: behind a backslash stands n, *, ? or another one`, pattern)
			}
			if literal = pattern[i]; literal == 'n' {
				literal = '\n'
			}
		}
		g.literals, g.wild = append(g.literals, literal), append(g.wild, wild)
	}
	return g, nil
}

// match takes time in proportion to the lengths of both, multiplied, at worst: it
// goes back to the last * only.
func (g glob) match(text []byte) bool {
	if len(text) > maxText {
		return false
	}
	star, from := -1, 0 // the last *, and where what follows it was tried
	i, at := 0, 0
	for at < len(text) {
		switch {
		case i < len(g.wild) && g.wild[i] == '*':
			star, from = i, at
			i++
		case i < len(g.wild) && (g.wild[i] == '?' || g.literals[i] == lower(text[at])):
			i++
			at++
		case star >= 0:
			from++
			i, at = star+1, from
		default:
			return false
		}
	}
	for i < len(g.wild) && g.wild[i] == '*' {
		i++
	}
	return i == len(g.wild)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
