package chaos

import (
	"encoding/csv"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scache/scache/internal/master"
)

// A sample is what was measured at a time.
type sample struct {
	at          time.Duration // since the beginning
	throughput  float64       // requests a second since the last sample, of clients that behave
	descriptors int           // of the daemon
	limit       int           // of these
	memory      int64         // bytes resident
	threads     int
	connections int // open at the sink: cached ones, and such as are used
}

var columns = []string{"seconds", "requests_per_second", "descriptors", "descriptor_limit", "resident_bytes", "threads", "sink_connections"}

func (s sample) row() []string {
	return []string{
		fmt.Sprintf("%.3f", s.at.Seconds()), fmt.Sprintf("%.1f", s.throughput), strconv.Itoa(s.descriptors),
		strconv.Itoa(s.limit), strconv.FormatInt(s.memory, 10), strconv.Itoa(s.threads), strconv.Itoa(s.connections),
	}
}

// monitor takes samples.
type monitor struct {
	daemon  *master.Daemon
	began   time.Time
	ops     int64 // at the last sample
	samples []sample
}

func (m *monitor) sample(ops int64, limit, connections int) error {
	s := sample{at: time.Since(m.began), limit: limit, connections: connections}
	elapsed := s.at
	if n := len(m.samples); n > 0 {
		elapsed -= m.samples[n-1].at
	}
	s.throughput = float64(ops-m.ops) / elapsed.Seconds()
	m.ops = ops
	var err error
	if s.descriptors, err = m.daemon.FDCount(); err != nil {
		return err
	}
	if s.memory, s.threads, err = status(m.daemon.PID); err != nil {
		return err
	}
	m.samples = append(m.samples, s)
	return nil
}

// status reads a process's resident memory and number of threads.
func status(pid int) (resident int64, threads int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &resident)
		fmt.Sscanf(line, "Threads: %d", &threads)
	}
	if resident == 0 || threads == 0 {
		return 0, 0, fmt.Errorf("process %d has ended", pid)
	}
	return resident << 10, threads, nil
}

// thirds are the medians of a figure in the first third, after a warm-up, and in the
// last one.
func (m *monitor) thirds(figure func(sample) float64) (first, last float64) {
	n := len(m.samples)
	median := func(samples []sample) float64 {
		var all []float64
		for _, s := range samples {
			all = append(all, figure(s))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return median(m.samples[n/10 : n/3+1]), median(m.samples[n*2/3:])
}

// most is the largest of a figure.
func (m *monitor) most(figure func(sample) int) (n int) {
	for _, s := range m.samples {
		n = max(n, figure(s))
	}
	return n
}

func (m *monitor) writeCSV(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := csv.NewWriter(f)
	w.Write(columns)
	for _, s := range m.samples {
		w.Write(s.row())
	}
	w.Flush()
	return w.Error()
}
