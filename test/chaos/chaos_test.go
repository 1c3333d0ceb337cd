package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
	"github.com/scache/scache/internal/master"
)

var (
	duration = flag.Duration("duration", time.Minute, "how long to go on")
	seed     = flag.Uint64("seed", 1, "seed of all that is random, but for how processes and packets interleave")
	out      = flag.String("out", "", "directory for the measurements, as CSV and pictures")
)

const (
	// patience bounds every wait for something that has to happen.
	patience = 30 * time.Second
	// stall is how long a client that behaves may get nothing done. It is shorter
	// than the daemon's time limit for those that do not.
	stall = 10 * time.Second
)

// The daemon's bounds: so small that they are met all the time.
const (
	ttlLimit   = 4 // seconds
	ipcTimeout = 15 * time.Second
	sizeLimit  = 40
	textLimit  = 256 << 10

	// Descriptors: there is room for all clients as a rule, and at times for
	// hardly any.
	noFile, leastNoFile = 256, 24
	// The kernel limits a user's descriptors on their way by the same number.
	mostUntaken = 4
)

var parameters = []string{
	fmt.Sprintf("connection_cache_ttl_limit=%ds", ttlLimit),
	fmt.Sprintf("ipc_timeout=%ds", ipcTimeout/time.Second),
	fmt.Sprintf("connection_cache_size_limit=%d", sizeLimit),
	"connection_cache_endpoint_limit=6",
	"connection_cache_binding_limit=60",
	"connection_cache_destination_limit=4",
	fmt.Sprintf("connection_cache_text_limit=%d", textLimit),
	fmt.Sprintf("connection_cache_client_memory_limit=%d", 1<<20),
	"connection_cache_reuse_order=lifo",
	"connection_cache_close_handshake=quit",
	"connection_cache_status_update_time=10s",
}

func TestMain(m *testing.M) {
	if text := os.Getenv(configVariable); text != "" {
		clientMain(text)
		return
	}
	os.Exit(m.Run())
}

// trial is one run.
type trial struct {
	t       *testing.T
	daemon  *master.Daemon
	stderr  *os.File
	sink    *sink
	fleet   *fleet
	monitor *monitor
	rnd     *rand.Rand
	noFile  int

	mu     sync.Mutex
	faults []string
}

// fault notes that something was wrong. It does not end the trial: what comes next
// may explain it.
func (r *trial) fault(format string, arguments ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Sprintf("%.3fs: ", time.Since(r.monitor.began).Seconds())+fmt.Sprintf(format, arguments...))
}

const mostFaults = 20 // more are not told, and end the trial

func (r *trial) hopeless() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.faults) >= mostFaults
}

func TestChaos(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("master(8) starts its daemons as root")
	}
	// The client processes end with this thread.
	runtime.LockOSThread()
	r := &trial{t: t, rnd: rand.New(rand.NewPCG(*seed, 0)), monitor: &monitor{began: time.Now()}}
	r.startDaemon()
	settled := r.settled()
	r.startClients()
	r.run()
	r.fleet.end()
	r.wantAllGone(settled)
	r.wantGoodEnd()
	r.wantMeasures()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, fault := range r.faults {
		if i < mostFaults {
			t.Error(fault)
		}
	}
	t.Logf("seed %d, %d requests, %+v", *seed, r.fleet.retired, r.fleet.counts)
	if t.Failed() {
		t.Logf("%d faults; log of the daemon: %q", len(r.faults), r.daemon.Texts())
	}
}

// underRace tells whether this test was built with the race detector.
func underRace() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

func (r *trial) startDaemon() {
	t := r.t
	var flags []string
	if underRace() {
		flags = []string{"-race"}
	}
	binary, remove, err := lab.UnderTest(context.Background(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	if !lab.IsGo(binary) {
		t.Skip("better than stock: stock serves one client at a time, and has no bounds")
	}
	if r.stderr, err = os.Create(filepath.Join(t.TempDir(), "stderr")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.stderr.Close() })
	var args []string
	for _, p := range parameters {
		args = append(args, "-o", p)
	}
	r.noFile = noFile
	r.daemon, err = master.Start(master.Config{
		Binary: binary, Unprivileged: true, Chroot: true, Args: args,
		// A user of its own: the kernel counts descriptors on their way by user, and
		// the daemons of other tests are postfix's.
		MainCF:     "mail_owner = nobody\n",
		NoFileSoft: noFile, NoFileHard: noFile,
		Stderr: r.stderr,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.daemon.Close() })
}

// settled is the number of descriptors that the daemon has with no client and nothing
// cached: the first client has come and gone.
func (r *trial) settled() (n int) {
	c, err := r.daemon.Dial()
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 100)); err != nil {
		r.t.Fatal(err)
	}
	with, err := r.daemon.FDCount()
	if err != nil {
		r.t.Fatal(err)
	}
	c.Close()
	r.eventually(func() error { return r.wantDescriptors(with - 1) })
	return with - 1
}

func (r *trial) wantDescriptors(n int) error {
	have, err := r.daemon.FDCount()
	if err == nil && have != n {
		err = fmt.Errorf("the daemon has %d descriptors open, not %d", have, n)
	}
	return err
}

func (r *trial) startClients() {
	r.t.Helper()
	var err error
	if r.sink, err = newSink(r.fault); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.sink.close)
	r.fleet = &fleet{
		config: config{Socket: r.daemon.SocketPath, Sink: r.sink.address()},
		rnd:    r.rnd, sink: r.sink, fault: r.fault,
	}
	if err := r.fleet.start(); err != nil {
		r.t.Fatal(err)
	}
}

// run disturbs everybody for as long as asked, and measures meanwhile.
func (r *trial) run() {
	r.monitor.daemon, r.monitor.began = r.daemon, time.Now()
	interval := max(250*time.Millisecond, *duration/2000) // between samples
	for sampled := time.Now(); time.Since(r.monitor.began) < *duration && !r.hopeless(); time.Sleep(25 * time.Millisecond) {
		r.sink.harass(r.rnd)
		if r.rnd.IntN(4) == 0 {
			if err := r.fleet.disturb(); err != nil {
				r.t.Fatal(err)
			}
		}
		if r.rnd.IntN(40) == 0 {
			r.squeeze()
		}
		for _, name := range r.fleet.stalled(stall) {
			r.fault("%s behaves and runs, and got nothing done in %v", name, stall)
		}
		if time.Since(sampled) < interval {
			continue
		}
		sampled = time.Now()
		if err := r.monitor.sample(r.fleet.ops(), r.noFile, r.sink.opened()); err != nil {
			r.fault("%v", err)
			return
		}
	}
	r.setNoFile(noFile)
}

// squeeze lowers the daemon's limit of descriptors under it, or raises it again.
func (r *trial) squeeze() {
	if r.noFile < noFile {
		r.setNoFile(noFile)
		return
	}
	r.fleet.counts.squeezes++
	r.setNoFile(leastNoFile + r.rnd.IntN(noFile-leastNoFile))
}

func (r *trial) setNoFile(n int) {
	r.noFile = n
	if err := r.daemon.SetNoFile(uint64(n), noFile); err != nil {
		r.fault("%v", err)
	}
}

// wantAllGone wants the daemon as it was: clients are gone, and times to live over.
func (r *trial) wantAllGone(settled int) {
	r.eventually(func() error { return r.wantDescriptors(settled) })
	r.eventually(func() error {
		if n := r.sink.opened(); n > 0 {
			return fmt.Errorf("%d connections are still open at the sink", n)
		}
		return nil
	})
}

var bad = regexp.MustCompile(`panic|fatal|watchdog|DATA RACE`)

// wantGoodEnd has the daemon leave as a reload does, and looks at what it said.
func (r *trial) wantGoodEnd() {
	r.daemon.CloseStatus()
	state, err := r.daemon.Wait(patience)
	if err != nil || state.ExitCode() != 0 {
		r.fault("the daemon ended with %v, %v", state, err)
	}
	for _, line := range r.daemon.Texts() {
		if bad.MatchString(line) {
			r.fault("the daemon logged %q", line)
		}
	}
	if text, err := os.ReadFile(r.stderr.Name()); err != nil || len(text) > 0 {
		r.fault("the daemon said %s, %v", text, err)
	}
}

// wantMeasures looks at what was measured, and writes it.
func (r *trial) wantMeasures() {
	m := r.monitor
	if len(m.samples) < 10 {
		r.fault("there are %d samples only", len(m.samples))
		return
	}
	first, last := m.thirds(func(s sample) float64 { return float64(s.memory) })
	r.t.Logf("memory %.1f MB, then %.1f MB; at most %d descriptors, %d threads", first/1e6, last/1e6,
		m.most(func(s sample) int { return s.descriptors }), m.most(func(s sample) int { return s.threads }))
	if *out == "" {
		return
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := m.writeCSV(filepath.Join(*out, "chaos.csv")); err != nil {
		r.t.Fatal(err)
	}
	if err := m.draw(*out); err != nil {
		r.t.Fatal(err)
	}
}

// eventually waits until f is content.
func (r *trial) eventually(f func() error) {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			r.fault("%v", err)
			return
		}
	}
}
