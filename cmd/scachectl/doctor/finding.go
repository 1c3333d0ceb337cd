// Package doctor looks at a Postfix instance and says why it caches nothing, or
// uses little again of what it has cached. It needs no cache of ours: what it reads
// are Postfix's settings, by way of postconf(1), and the mail log.
//
// Read collects what there is to know into a System, and the rules, in the files
// beside, turn it into findings. They ask nobody: what they say follows from the
// System alone.
package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// Severity is how bad a finding is.
type Severity int

const (
	Note    Severity = iota // worth knowing
	Warning                 // less is cached or used again than could be
	Error                   // nothing is, or mail is held up
)

var severities = []string{"note", "warning", "error"}

func (s Severity) String() string { return severities[s] }

// MarshalText makes the word of it in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that keeps connections from being cached or reused.
type Finding struct {
	Rule     string   `json:"rule"` // its name, which does not change
	Severity Severity `json:"severity"`
	Services []string `json:"services"` // of master.cf; none: the whole instance
	Text     string   `json:"text"`     // what is the matter
	Why      string   `json:"why"`      // what follows from it
	Fix      []string `json:"fix"`      // commands for a shell, in order; may be none
}

// rules are all there are. Each yields what it finds.
var rules = []func(s *System, yield func(Finding)){
	neverCached, onDemandOnly, unmatchable, relayNotListed, loweredTimeToLive, fewUses, briefUse,
	tlsNotReused, noTLSProxy, tlsProxyWithoutLevel, bySender,
	noCacheService, processLimit, notPrivate, noProgram, unknownToStock, unknownParameter,
	fewPerEndpoint, fewInAll, notInForce, parameterMistake, policyMistake, policyOddity,
	paused, socketTrouble, loggedTrouble, nothingReused,
}

// Diagnose applies all rules, and returns what they find, the worst first. What
// several services have in common is one finding.
func Diagnose(s *System) []Finding {
	findings := []Finding{}
	for _, rule := range rules {
		rule(s, func(f Finding) { findings = add(findings, f) })
	}
	slices.SortStableFunc(findings, func(a, b Finding) int { return int(b.Severity - a.Severity) })
	return findings
}

func add(findings []Finding, f Finding) []Finding {
	for i, g := range findings {
		if g.Rule == f.Rule && g.Text == f.Text && slices.Equal(g.Fix, f.Fix) {
			findings[i].Services = append(g.Services, f.Services...)
			return findings
		}
	}
	// None is an empty list in JSON, and not null.
	f.Services, f.Fix = append([]string{}, f.Services...), append([]string{}, f.Fix...)
	return append(findings, f)
}

// shell turns words into a command line to copy.
func shell(words ...string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = quote(word)
	}
	return strings.Join(quoted, " ")
}

func quote(word string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_./=:,+@%", r)
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return word
	}
	return fmt.Sprintf("'%s'", strings.ReplaceAll(word, "'", `'\''`))
}
