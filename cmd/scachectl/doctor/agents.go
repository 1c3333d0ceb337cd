package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// finding is one about this agent.
func (a *Agent) finding(rule string, severity Severity, text, why string, fix ...string) Finding {
	return Finding{rule, severity, []string{a.Name}, text, why, fix}
}

func (a *Agent) onDemand() bool       { return a.yes("connection_cache_on_demand") }
func (a *Agent) destinations() string { return a.value("connection_cache_destinations") }

// caches tells whether the agent uses its cache at all (smtp/smtp.c, pre_init).
func (a *Agent) caches() bool { return a.onDemand() || a.destinations() != "" }

func neverCached(s *System, yield func(Finding)) {
	for _, a := range s.Agents {
		if a.caches() {
			continue
		}
		yield(a.finding("never-cached", Error,
			fmt.Sprintf("%sconnection_cache_on_demand is off, and %[1]sconnection_cache_destinations is empty", a.Prefix),
			"Nothing tells Postfix to cache: each delivery makes a connection of its own.",
			a.change("connection_cache_on_demand", "yes")))
	}
}

func onDemandOnly(s *System, yield func(Finding)) {
	for _, a := range s.Agents {
		if !a.onDemand() || a.destinations() != "" {
			continue
		}
		f := a.finding("on-demand-only", Note,
			"connections are cached on demand only",
			"The queue manager asks for caching when deliveries to one destination follow each other within a second; "+
				"mail that trickles in makes a connection each. Destinations that are listed are always cached for.")
		if len(s.relayHosts(a)) > 0 {
			f.Fix = []string{a.change("connection_cache_destinations", strings.Join(s.listedWith(a), ", "))}
		}
		yield(f)
	}
}

var (
	// hop matches a next hop with or without brackets and port.
	hop = regexp.MustCompile(`^\[?([^\[\]]*?)\]?(:[0-9a-z]+)?$`)
	// decorated matches one that has either; type:table is none.
	decorated = regexp.MustCompile(`^\[|^[\w.-]+:\d+$`)
)

// nextHop is what a next hop such as [mail.example.com]:587 has to be called in
// connection_cache_destinations: Postfix compares the bare name (smtp/smtp_connect.c,
// smtp_connect_inet).
func nextHop(destination string) string { return hop.ReplaceAllString(destination, "$1") }

// listed are the entries of the agent's connection_cache_destinations.
func (a *Agent) listed() []string { return words(a.destinations()) }

func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

// relayHosts are the hosts, by their bare names, by way of which an agent sends all mail: those of
// relayhost, or of a transport, which goes before it (postconf(5)). An IPv6 address is none of
// them, see tableOrAddress, nor is a socket of LMTP's.
func (s *System) relayHosts(a *Agent) (hosts []string) {
	for _, transport := range []string{"default_transport", "relay_transport"} {
		name, hop, _ := strings.Cut(s.Main[transport], ":")
		if name != a.Name {
			continue
		}
		for _, host := range words(cmp.Or(hop, s.Main["relayhost"])) {
			if a.Prefix == "lmtp_" {
				if strings.HasPrefix(host, "unix:") {
					continue
				}
				host = strings.TrimPrefix(host, "inet:")
			}
			if host = nextHop(host); !tableOrAddress(host) && !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

// listedWith are the relay hosts of all agents that have their list of destinations from the same
// place as this one: a command for each would undo the one before.
func (s *System) listedWith(a *Agent) (hosts []string) {
	place := func(a *Agent) string { return a.change("connection_cache_destinations", "") }
	for _, b := range s.Agents {
		if place(b) != place(a) {
			continue
		}
		for _, host := range s.relayHosts(b) {
			if !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

// tableOrAddress tells what Postfix takes for type:table in a list, as it does an IPv6 address.
func tableOrAddress(entry string) bool { return strings.Contains(entry, ":") }

// isAddress6 tells an IPv6 address, which in a list fails at every look, and ends it.
func isAddress6(entry string) bool {
	a, err := netip.ParseAddr(entry)
	return err == nil && a.Is6()
}

func unmatchable(s *System, yield func(Finding)) {
	for _, a := range s.Agents {
		var wrong, right []string
		for _, entry := range a.listed() {
			bare := nextHop(entry)
			if decorated.MatchString(entry) || isAddress6(entry) {
				wrong = append(wrong, entry)
				if tableOrAddress(bare) {
					continue // no way to list it
				}
			} else {
				bare = entry
			}
			right = append(right, bare)
		}
		if len(wrong) == 0 {
			continue
		}
		yield(a.finding("unmatchable-destination", Error,
			fmt.Sprintf("%sconnection_cache_destinations holds %s, which matches nothing", a.Prefix, strings.Join(wrong, ", ")),
			"Postfix compares with the name alone, without brackets and port, and takes an IPv6 address for a table: for these destinations nothing is cached, except on demand.",
			a.change("connection_cache_destinations", strings.Join(right, ", "))))
	}
}

// relayNotListed: a list of recipients' domains matches nothing where mail goes by way of
// a relay host (smtp/smtp_connect.c, smtp_connect_inet).
func relayNotListed(s *System, yield func(Finding)) {
	for _, a := range s.Agents {
		entries := a.listed()
		tableOrNot := func(entry string) bool { return strings.ContainsAny(entry, ":/!") }
		if len(entries) == 0 || slices.ContainsFunc(entries, tableOrNot) {
			continue
		}
		listed := func(host string) bool {
			return slices.ContainsFunc(entries, func(entry string) bool { return strings.EqualFold(entry, host) })
		}
		if len(slices.DeleteFunc(s.relayHosts(a), listed)) == 0 {
			continue
		}
		missing := slices.DeleteFunc(s.listedWith(a), listed)
		yield(a.finding("relay-not-listed", Warning,
			fmt.Sprintf("%sconnection_cache_destinations does not list %s, by way of which mail goes", a.Prefix, strings.Join(missing, ", ")),
			"Postfix compares with the next hop. That is the relayhost, or what stands behind the transport's name, for all mail that transport_maps do not send elsewhere, "+
				"and never the recipient's domain: for this mail nothing is cached, except on demand.",
			a.change("connection_cache_destinations", strings.Join(append(entries, missing...), ", "))))
	}
}

// most is the largest value of the agents that use a cache: a limit of it is for all of them.
func most[T cmp.Ordered](s *System, c *Cache, value func(*Agent) T) (largest T) {
	for _, a := range s.users(c) {
		largest = max(largest, value(a))
	}
	return largest
}

func loweredTimeToLive(s *System, yield func(Finding)) {
	asks := func(a *Agent) time.Duration { return a.duration("connection_cache_time_limit") }
	for _, a := range s.Agents {
		c := s.cache(a.cacheName())
		asked, limit := asks(a), c.Settings.Duration("connection_cache_ttl_limit")
		if limit == 0 || asked <= limit || !a.caches() {
			continue
		}
		yield(a.finding("lowered-time-to-live", Warning,
			fmt.Sprintf("connection_cache_ttl_limit (%s) is below %sconnection_cache_time_limit (%s)", seconds(limit), a.Prefix, seconds(asked)),
			fmt.Sprintf("The cache grants the lower of the two: connections are closed after %s.", seconds(limit)),
			s.changeCache(c, "connection_cache_ttl_limit", seconds(most(s, c, asks)))...))
	}
}

// Limits below which one reuse hardly follows another: what they save is less than
// what a connection costs.
const (
	leastUses = 10
	leastUse  = 30 * time.Second
)

func fewUses(s *System, yield func(Finding)) {
	for _, a := range s.Agents {
		uses := a.int("connection_reuse_count_limit")
		if uses == 0 || uses >= leastUses {
			continue
		}
		yield(a.finding("few-uses", Warning,
			fmt.Sprintf("%sconnection_reuse_count_limit is %d", a.Prefix, uses),
			fmt.Sprintf("A connection is closed after %s. Unless a receiver demands it, no limit is better; "+
				"a limit by time is %sconnection_reuse_time_limit.", counted(uses, "reuse", "reuses"), a.Prefix),
			a.change("connection_reuse_count_limit", "0")))
	}
}

func briefUse(s *System, yield func(Finding)) {
	for _, a := range s.Agents {
		use := a.duration("connection_reuse_time_limit")
		if use >= leastUse {
			continue
		}
		yield(a.finding("brief-use", Warning,
			fmt.Sprintf("%sconnection_reuse_time_limit is %s", a.Prefix, seconds(use)),
			"A connection that has been open for longer is closed instead of cached.",
			a.change("connection_reuse_time_limit", "300s")))
	}
}

// bySender: the sender becomes a field of both labels (smtp/smtp.h,
// SMTP_KEY_MASK_SCACHE_DEST_LABEL), so that caching is not off, as the manual
// says, but of use to mail of one sender only.
func bySender(s *System, yield func(Finding)) {
	for _, a := range s.Agents {
		if !a.yes("sasl_auth_enable") || a.value("sasl_password_maps") == "" || !a.yes("sender_dependent_authentication") {
			continue
		}
		yield(a.finding("by-sender", Warning,
			fmt.Sprintf("%ssender_dependent_authentication is on", a.Prefix),
			"Each sender's mail has connections of its own: one is used again only for mail of the same sender. "+
				"If all senders log in with the same account, turn it off.",
			a.change("sender_dependent_authentication", "no")))
	}
}

// seconds is a duration as main.cf has it.
func seconds(d time.Duration) string { return strconv.Itoa(int(d/time.Second)) + "s" }
