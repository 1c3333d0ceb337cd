package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/scache/scache/bench/agent"
)

func samples(rates ...float64) (s []Sample) {
	for _, r := range rates {
		s = append(s, Sample{PerSecond: r, P99: figure(1000 / r), CPU: figure(1 / r)})
	}
	return s
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	r := ratios(samples(10, 40, 90, 7), samples(1, 2, 3), throughput)
	if r != (spread{20, 10, 30}) {
		t.Errorf("%v", r)
	}
	if r := ratios(samples(1, 2), samples(0, 4), throughput); r != (spread{0.5, 0.5, 0.5}) {
		t.Errorf("with a round in which nothing was done: %v", r)
	}
	if r := ratios(nil, samples(1), throughput); r.Median.known() {
		t.Errorf("of nothing: %v", r)
	}
}

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{3: {9, 3, 1}, 2.5: {4, 1, 2, 3}, 7: {7}} {
		if got := median(values); got != want {
			t.Errorf("median(%v) = %v", values, got)
		}
	}
}

// What a server could not follow is said, and not only in JSON.
func TestTooSlowForTheRate(t *testing.T) {
	var text strings.Builder
	o := &Outcome{Standings: []Standing{
		{Server: ours, Samples: []Sample{{P99: 1}}}, {Server: stock, Samples: []Sample{{P99: 4, Stalled: 64, Unstarted: 1234}}},
	}}
	o.compare()
	writeOutcome(&text, o)
	if !strings.Contains(text.String(), "64 clients") || !strings.Contains(text.String(), "1,234 operations") || !strings.Contains(text.String(), "p99 at most x 0.25") {
		t.Errorf("%s", text.String())
	}
}

func TestSample(t *testing.T) {
	h := hdrhistogram.New(1000, 1e12, 3)
	for i := range 1000 {
		h.RecordValue(int64(i+1) * 1e6)
	}
	s := newSample(agent.Result{Ops: 500, InTime: 400, Elapsed: 2e9, Latency: h}, 1e9)
	near := func(got figure, want float64) bool { return math.Abs(float64(got)-want) <= want/500 }
	if s.PerSecond != 200 || s.CPU != 2500 || !near(s.P50, 500e3) || !near(s.P99, 990e3) || !near(s.P999, 999e3) || !near(s.Max, 1000e3) {
		t.Errorf("%+v", s)
	}
	h.Reset()
	s = newSample(agent.Result{Elapsed: 1e9, Latency: h}, 1e9) // nothing was done
	if text, err := json.Marshal(s); err != nil || strings.Count(string(text), "_us\":null") != 4 || !strings.Contains(string(text), `"server_cpu_us_per_op":null`) {
		t.Errorf("%s, %v", text, err)
	}
	if r := ratios([]Sample{s}, []Sample{s}, p99); r.Median.known() {
		t.Errorf("ratio of the latencies of nothing: %v", r)
	}
}

func TestNumbers(t *testing.T) {
	for want, got := range map[string]string{
		"1,234,567": grouped(1234567), "-12,345": grouped(-12345), "999": grouped(999), "-123": grouped(-123),
		"12,346": short(12345.6), "miss, 1 client, at 0.50 a second": Scenario{Workload: agent.Miss, Clients: 1, Rate: 0.5}.String(), "0.00": short(0), "0.0123": short(0.0123), "-": short(math.NaN()), "12.3": short(12.34),
		"1.50ms": microText(1500), "2.00s": microText(2e6), "999us": microText(999),
		`go run ./bench -vs '' -out 'it'\''s here' -json`: command([]string{"-vs", "", "-out", "it's here", "-json"}),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestParseStrace(t *testing.T) {
	for _, text := range []string{
		"% time     seconds  usecs/call     calls    errors syscall\n------ --\n 60.00    0.01           2        70           sendto\n------ --\n100.00    0.000000           5       109        14 total\n",
		"% time     seconds  usecs/call     calls    errors syscall\n------ --\n100.00    0.000000                   109        14 total\n",
		"% time     seconds  usecs/call     calls    errors syscall\n------ --\n100.00    0.000000           5       109           total\n",
	} {
		if n, err := parseStrace(text); n != 109 || err != nil {
			t.Errorf("%d, %v in\n%s", n, err, text)
		}
	}
	if _, err := parseStrace("strace: Process 1 detached\n"); err == nil {
		t.Error("a total in nothing")
	}
}

func TestOptions(t *testing.T) {
	bad := []string{
		"-workloads=x", "-sweep=x", "rest", "-hit=2", "-hit=NaN", "-label=1", "-rounds=0", "-duration=0s", "-duration=2h", "-ttl=0", "-ttl=86401",
		"-clients=9", "-cached=9", "-bound=9", "-stopped=1", "-rate=9", "-listed", "-endpoints=9", // what is measured does not depend on these
	}
	for _, flags := range []string{
		"-clients=0", "-cached=-1", "-bound=-1", "-bound=20000000", "-stopped=-1", "-verify -endpoints=3", "-glue -rate=9",
		"-rate=-1", "-rate=NaN", "-rate=Inf", "-rate=1e-12", "-rate=1e9",
	} {
		bad = append(bad, "-workloads=cycle "+flags)
	}
	for _, bad := range bad {
		if _, err := parseOptions(strings.Fields(bad), new(strings.Builder)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	for _, good := range []string{"", "-sweep=clients -endpoints=3", "-workloads=cycle -rate=0.5 -listed", "-takeover -glue", "-report=x"} {
		if _, err := parseOptions(strings.Fields(good), new(strings.Builder)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestTooFewDescriptors(t *testing.T) {
	if err := checkDescriptors(Scenario{Clients: 1 << 29}.descriptors()); err == nil || !strings.Contains(err.Error(), "ulimit") {
		t.Errorf("%v", err)
	}
	if err := checkDescriptors(Scenario{Clients: 64}.descriptors()); err != nil {
		t.Error(err)
	}
}

// A sweep is as long as the limit of descriptors lets, and can be drawn.
func TestSweepWithinLimit(t *testing.T) {
	for _, name := range sweepNames {
		for _, limit := range []int{0, 100, 300, 2000, 20_000, 1 << 20} {
			sweep, at := newSweep(name, limit)
			for i, n := range sweep.Points {
				if n < 0 || at(n).Clients < 1 || i > 0 && n <= sweep.Points[i-1] {
					t.Errorf("%s, limit %d: %v", name, limit, sweep.Points)
				}
				if needed := at(n).descriptors(); limit >= 2000 && needed > limit {
					t.Errorf("%s, limit %d: %v needs %d", name, limit, at(n), needed)
				}
			}
			if place(sweep, 0) <= 0 {
				t.Errorf("%s, limit %d: no place for 0", name, limit)
			}
		}
	}
}

// The report and the pictures do without what could not be measured.
func TestReportWithGaps(t *testing.T) {
	var sweep Sweep
	sweep.Name, sweep.Title, sweep.Axis, sweep.Points = "bound", "bind", "things", []int{0, 10, 100}
	for i := range sweep.Points {
		o := &Outcome{Standings: []Standing{{Server: ours, Samples: samples(5, 6)}, {Server: stock}, {Server: theFloor, Note: "none"}}}
		if i == 0 {
			o.standing(stock).Samples = samples(1)
		}
		sweep.Runs = append(sweep.Runs, o)
	}
	var screen strings.Builder
	writeSweep(&screen, &sweep)
	writeOutcome(&screen, sweep.Runs[1])
	results := &Results{Sweeps: []*Sweep{&sweep}, Outcomes: sweep.Runs, Goals: []Goal{{"w", "g", "1", "met"}}, Memory: []Memory{{Server: ours}}}
	results.Burst = &Burst{Seconds: 1, Remains: []Remains{{Server: oursFIFO, Open: make([]int, burstSamples+1)}}}
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	if err := writeReport(results, file); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(file)
	for _, name := range append([]string{screen.String()}, string(text)) {
		if strings.Contains(name, "NaN") {
			t.Errorf("NaN in:\n%s", name)
		}
	}
	pictures, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "b*.svg"))
	if len(pictures) != len(drawings)+1 {
		t.Errorf("pictures: %v", pictures)
	}
}

// A goal is judged as it is shown, and what was not measured is not met.
func TestVerdicts(t *testing.T) {
	outcome := func(mine, theirs []Sample, name string) *Outcome {
		return &Outcome{Standings: []Standing{{Server: ours, Samples: mine}, {Server: name, Samples: theirs}}}
	}
	besideFloor := func(mine, floor, none []Sample) *Outcome {
		o := outcome(mine, none, bare)
		o.Standings = append(o.Standings, Standing{Server: theFloor, Samples: floor}, Standing{Server: bareFloor, Samples: none})
		return o
	}
	one := samples(100)
	for _, c := range []struct {
		mine float64
		ask  func(*judge, []Sample)
		want string
	}{
		{1000, func(j *judge, mine []Sample) { j.atLeast("", "", outcome(mine, one, stock), throughput, 10) }, "met"},
		{999, func(j *judge, mine []Sample) { j.atLeast("", "", outcome(mine, one, stock), throughput, 10) }, "NOT MET"},
		{99.6, func(j *judge, mine []Sample) { j.atMost("", "", outcome(mine, one, stock), stock, p99, 1) }, "met"},
		{99.4, func(j *judge, mine []Sample) { j.atMost("", "", outcome(mine, one, stock), stock, p99, 1) }, "NOT MET"},
		{99.4, func(j *judge, mine []Sample) { j.atMost("", "", outcome(mine, one, stock), theFloor, p99, 1) }, "-"},
		{90, func(j *judge, mine []Sample) { j.near("", "", outcome(mine, one, bare)) }, "met"},
		{89, func(j *judge, mine []Sample) { j.near("", "", outcome(mine, one, bare)) }, "NOT MET"},
		{90, func(j *judge, mine []Sample) { j.flat("", outcome(mine, one, bare)) }, "met"},
		{89, func(j *judge, mine []Sample) { j.flat("", outcome(mine, one, bare)) }, "NOT MET"},
		{73, func(j *judge, mine []Sample) { j.flat("", besideFloor(mine, samples(80), one)) }, "met"},
		{71, func(j *judge, mine []Sample) { j.flat("", besideFloor(mine, samples(80), one)) }, "NOT MET"},
		{90, func(j *judge, mine []Sample) { j.flat("", besideFloor(mine, samples(120), one)) }, "met"},
		{91, func(j *judge, mine []Sample) { j.unchanged("", outcome(mine, one, bare)) }, "met"},
		{90, func(j *judge, mine []Sample) { j.unchanged("", outcome(mine, one, bare)) }, "NOT MET"},
	} {
		j := judge{}
		if c.ask(&j, samples(c.mine)); j.goals[0].Verdict != c.want {
			t.Errorf("%v beside 100: %+v, want %s", c.mine, j.goals[0], c.want)
		}
	}
}
