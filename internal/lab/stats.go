package lab

import (
	"fmt"
	"regexp"
	"strings"
)

// Stats adds up the statistics that the caches of one instance have logged.
type Stats struct {
	Reports, Processes             int
	DomainHits, DomainMisses       int
	AddressHits, AddressMisses     int
	Domains, Addresses, Connection int // the largest maximum reported
}

// Hits is the look-ups that found a connection.
func (s Stats) Hits() int { return s.DomainHits + s.AddressHits }

// The lines as log tools in the field know them, to the byte.
const (
	date     = `[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d`
	logStamp = `^` + date + ` [^ .]+ `
)

var (
	anyStatistics = regexp.MustCompile(`statistics: `)
	statistics    = regexp.MustCompile(logStamp + `([^ ]+)/scache\[(\d+)\]: statistics: (.*)$`)
	startForm     = regexp.MustCompile(`^start interval ` + date + `$`)
	lookupForm    = regexp.MustCompile(`^(?:domain|address) lookup hits=\d+ miss=\d+ success=\d+%$`)
	maximaForm    = regexp.MustCompile(`^max simultaneous domains=\d+ addresses=\d+ connection=\d+$`)
)

// Statistics reads the statistics in the mail log. It is strict: a line of
// another form, out of order, or with a wrong percentage is an error.
func (l *Lab) Statistics(syslogName string) (Stats, error) {
	p := statsParser{name: syslogName, last: map[string]int{}}
	for _, line := range l.LogLines(anyStatistics) {
		if err := p.line(line); err != nil {
			return p.sum, fmt.Errorf("%w: %s", err, line)
		}
	}
	p.sum.Processes = len(p.last)
	return p.sum, nil
}

// statsParser holds the place of each process in its report.
type statsParser struct {
	name string
	sum  Stats
	last map[string]int // pid -> rank of its latest line
}

// Ranks of a report's lines: any but the first may be left out.
const (
	rankStart = iota
	rankDomain
	rankAddress
	rankMaxima
)

func (p *statsParser) line(line string) error {
	m := statistics.FindStringSubmatch(line)
	if m == nil || m[1] != p.name {
		return fmt.Errorf("not logged by %s/scache", p.name)
	}
	pid, text := m[2], m[3]
	rank, err := p.text(text)
	if err != nil {
		return err
	}
	last, begun := p.last[pid]
	if rank != rankStart && (!begun || last >= rank) {
		return fmt.Errorf("statistics out of order")
	}
	p.last[pid] = rank
	return nil
}

func (p *statsParser) text(text string) (rank int, err error) {
	switch {
	case startForm.MatchString(text):
		p.sum.Reports++
		return rankStart, nil
	case lookupForm.MatchString(text):
		if strings.HasPrefix(text, "domain") {
			return rankDomain, addLookups(text, &p.sum.DomainHits, &p.sum.DomainMisses)
		}
		return rankAddress, addLookups(text, &p.sum.AddressHits, &p.sum.AddressMisses)
	case maximaForm.MatchString(text):
		return rankMaxima, p.maxima(text)
	}
	return 0, fmt.Errorf("unknown form")
}

func addLookups(text string, hits, misses *int) error {
	var kind string
	var hit, miss, percent int
	if _, err := fmt.Sscanf(text, "%s lookup hits=%d miss=%d success=%d%%", &kind, &hit, &miss, &percent); err != nil {
		return err
	}
	if hit+miss == 0 || percent != 100*hit/(hit+miss) {
		return fmt.Errorf("wrong percentage")
	}
	*hits += hit
	*misses += miss
	return nil
}

func (p *statsParser) maxima(text string) error {
	var domains, addresses, connections int
	_, err := fmt.Sscanf(text, "max simultaneous domains=%d addresses=%d connection=%d", &domains, &addresses, &connections)
	p.sum.Domains = max(p.sum.Domains, domains)
	p.sum.Addresses = max(p.sum.Addresses, addresses)
	p.sum.Connection = max(p.sum.Connection, connections)
	return err
}
