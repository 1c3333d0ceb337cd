package protocol

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// PROTOCOL.md, "The process": statistics.

var startInterval = regexp.MustCompile(`^statistics: start interval (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 123]\d \d\d:\d\d:\d\d$`)

// statistics returns the reports so far, each as its lines after the first.
func (d *daemon) statistics() (reports [][]string) {
	d.t.Helper()
	for _, text := range d.Texts() {
		switch {
		case !strings.HasPrefix(text, "statistics: "):
		case strings.HasPrefix(text, "statistics: start interval "):
			if !startInterval.MatchString(text) {
				d.t.Errorf("odd line %q", text)
			}
			reports = append(reports, nil)
		case len(reports) == 0:
			d.t.Fatalf("no start of the interval before %q", text)
		default:
			last := len(reports) - 1
			reports[last] = append(reports[last], text)
		}
	}
	return reports
}

// wantStatistics expects one report, of these lines.
func (d *daemon) wantStatistics(lines ...string) {
	d.t.Helper()
	reports := d.statistics()
	if len(reports) != 1 || !slices.Equal(reports[0], lines) {
		d.t.Errorf("statistics %q, not %q", reports, lines)
	}
}

// leaving has the daemon report by leaving.
func (d *daemon) leaving(lines ...string) {
	d.t.Helper()
	d.leave()
	d.wantStatistics(lines...)
}

func TestStatisticsCount(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		do    func(d *daemon, c *client, p *pair)
		lines []string
	}{
		{"address look-ups are find_endp only", func(d *daemon, c *client, p *pair) {
			for range 3 {
				c.wantNoEndp("E")
			}
			for range 7 {
				c.wantNoDest("D")
			}
		}, []string{
			"statistics: domain lookup hits=0 miss=7 success=0%",
			"statistics: address lookup hits=0 miss=3 success=0%",
		}},
		{"percentages are truncated", func(d *daemon, c *client, p *pair) {
			c.bind("100", "D", "DP", "E")
			for range 2 {
				c.save("100", "E", "EP", p.near)
				c.wantDest("D", "DP", "EP", p)
			}
			c.wantNoDest("D")
			for range 199 {
				c.save("100", "E", "EP", p.near)
				c.wantEndp("E", "EP", p)
			}
			c.wantNoEndp("E")
		}, []string{
			"statistics: domain lookup hits=2 miss=1 success=66%",
			"statistics: address lookup hits=199 miss=1 success=99%",
			"statistics: max simultaneous domains=1 addresses=1 connection=1",
		}},
		{"a line of zeroes is not logged", func(d *daemon, c *client, p *pair) {
			c.bind("100", "D", "DP", "E")
		}, []string{
			"statistics: max simultaneous domains=1 addresses=0 connection=0",
		}},
		{"maxima", func(d *daemon, c *client, p *pair) {
			for _, name := range []string{"D1", "D2", "D3", "D1", "D2"} { // three names
				c.bind("100", name, "DP", "E1")
				c.bind("100", name, "DP2", "E9")
			}
			for _, name := range []string{"E1", "E2", "E1", "E1"} {
				c.save("100", name, "EP", p.near)
			}
			for range 3 {
				c.wantEndp("E1", "EP", p)
			}
			c.save("100", "E3", "EP", p.near)
		}, []string{
			"statistics: address lookup hits=3 miss=0 success=100%",
			"statistics: max simultaneous domains=3 addresses=2 connection=4",
		}},
		{"bad requests do not count", func(d *daemon, c *client, p *pair) {
			c.wantNoEndp("E")
			for request, reply := range map[string]string{
				message("request", "find_endp"):             endpBad,
				message("request", "find_dest", "x", "y"):   destBad,
				message("request", "none", "label", "E"):    statusBad,
				saveDest("0", "D", "DP", "E"):               statusBad,
				saveEndp("x", "E", "EP"):                    statusBad,
				message("request", "save_dest", "ttl", "1"): statusBad,
			} {
				c.send(request)
				c.want(reply)
			}
			c.send(saveEndp("100", "E", "EP"))
			c.want(dummy)
			c.send("x")
			c.want(statusFail)
			c.send("\x00" + findEndp("E"))
			c.want(endpMiss)
		}, []string{
			"statistics: address lookup hits=0 miss=2 success=0%",
		}},
		{"a hit that nobody takes is a hit", func(d *daemon, c *client, p *pair) {
			c.save("100", "E", "EP", p.near)
			c.send(findEndp("E"))
			c.want(endpHit("EP"))
			c.close()
			d.dial().wantNoDest("D")
		}, []string{
			"statistics: domain lookup hits=0 miss=1 success=0%",
			"statistics: address lookup hits=1 miss=0 success=100%",
			"statistics: max simultaneous domains=0 addresses=1 connection=1",
		}},
		{"a save that nobody waits for is one", func(d *daemon, c *client, p *pair) {
			c.send(saveEndp("100", "E", "EP"))
			c.want(dummy)
			c.sendFD("\x00", p.near)
			c.taken()
			c.close()
			d.dial().wantNoDest("D")
		}, []string{
			"statistics: domain lookup hits=0 miss=1 success=0%",
			"statistics: max simultaneous domains=0 addresses=1 connection=1",
		}},
		{"nothing at all", func(d *daemon, c *client, p *pair) {}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			test.do(d, d.dial(), newPair(t))
			d.leave()
			if test.lines == nil {
				if log := d.Texts(); len(log) > 0 {
					t.Errorf("logged %q", log)
				}
				return
			}
			d.wantStatistics(test.lines...)
		})
	}
}

// A save_dest, also one that only refreshes, samples names of destinations and
// endpoints; a save_endp names of endpoints and connections. The samples are
// taken after the save.
func TestStatisticsSampling(t *testing.T) {
	t.Parallel()
	d := start(t, "-o", "connection_cache_status_update_time=3s")
	c := d.dial()
	p := newPair(t)
	c.bind("1000", "D1", "DP", "E1")
	c.bind("1000", "D2", "DP", "E1")
	c.save("1000", "E1", "EP", p.near)
	c.save("1000", "E1", "EP", p.near)
	c.save("1000", "E2", "EP", p.near)

	wantReport := func(n int, lines ...string) {
		t.Helper()
		eventually(t, func() error {
			if len(d.statistics()) < n {
				return errNotYet
			}
			return nil
		})
		// The lines of one report are logged together, but arrive one by one.
		eventually(t, func() error {
			if len(d.statistics()[n-1]) < len(lines) {
				return errNotYet
			}
			return nil
		})
		if have := d.statistics()[n-1]; !slices.Equal(have, lines) {
			t.Fatalf("report %d: %q, not %q", n, have, lines)
		}
	}
	wantReport(1, "statistics: max simultaneous domains=2 addresses=2 connection=3")
	// Each report resets all: what is cached is not sampled until a save.
	c.wantNoEndp("none")
	wantReport(2, "statistics: address lookup hits=0 miss=1 success=0%")
	c.bind("1000", "D1", "DP", "E1") // a refresh
	wantReport(3, "statistics: max simultaneous domains=2 addresses=2 connection=0")
	c.save("1000", "E1", "EP", p.near)
	wantReport(4, "statistics: max simultaneous domains=0 addresses=2 connection=4")
	c.wantEndp("E2", "EP", p)
	wantReport(5, "statistics: address lookup hits=1 miss=0 success=100%")
	// Nothing happens: nothing is logged, here nor at the end.
	time.Sleep(3500 * time.Millisecond)
	d.leave()
	if n := len(d.statistics()); n != 5 {
		t.Errorf("%d reports: %q", n, d.statistics())
	}
}

// What has expired is not counted.
func TestStatisticsAfterExpiry(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial()
	p := newPair(t)
	q := newPair(t)
	c.bind("1", "D1", "DP", "E1")
	c.save("1", "E1", "EP", p.near)
	p.wantClosed(t)
	time.Sleep(1200 * time.Millisecond) // the binding may go a little later
	c.bind("1000", "D2", "DP", "E2")
	c.save("1000", "E2", "EP", q.near)
	d.leaving("statistics: max simultaneous domains=1 addresses=1 connection=1")
}

// The interval's start is the local time of the last report, or of the start.
func TestStatisticsInterval(t *testing.T) {
	t.Parallel()
	began := time.Now()
	d := start(t)
	d.dial().inStep()
	up := time.Now()
	d.leave()
	var line string
	for _, text := range d.Texts() {
		if startInterval.MatchString(text) {
			line = text
		}
	}
	for at := began.Add(-time.Second); !at.After(up.Add(time.Second)); at = at.Add(time.Second / 2) {
		if line == "statistics: start interval "+at.Format(time.Stamp) {
			return
		}
	}
	t.Errorf("%q, and the daemon was started at %v", line, began)
}
