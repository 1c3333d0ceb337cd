package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
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

// mostThreads is far above what the daemon needs, of which most are Go's.
const mostThreads = 30

// The daemon's bounds: so small that they are met all the time.
const (
	ttlLimit   = 4 // seconds
	ipcTimeout = 15 * time.Second
	sizeLimit  = 40
	textLimit  = 300 << 10 // more than what all clients can be saving at a time

	// Descriptors: there is room for all clients as a rule, and at times for
	// hardly any.
	noFile, leastNoFile = 512, 24
	longestSqueeze      = 4 * time.Second
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
	noFile  int       // the daemon's descriptor limit
	relief  time.Time // when it is raised again at the latest

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
	r.wantBoundsMet()
	r.wantFlat()
	r.write()
	r.tell()
}

// tell reports what was wrong.
func (r *trial) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.t
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
		r.squeeze()
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

// squeeze lowers the daemon's limit of descriptors under it for a while.
func (r *trial) squeeze() {
	switch {
	case r.noFile < noFile:
		if time.Now().After(r.relief) {
			r.setNoFile(noFile)
		}
	case r.rnd.IntN(80) == 0:
		r.relief = time.Now().Add(time.Duration(r.rnd.Int64N(int64(longestSqueeze))))
		r.setNoFile(leastNoFile + r.rnd.IntN(100))
	}
}

func (r *trial) setNoFile(n int) {
	low := n < noFile
	if low {
		r.fleet.squeezed(true)
	}
	if err := r.daemon.SetNoFile(uint64(n), noFile); err != nil {
		r.fault("%v", err)
	}
	if r.noFile = n; !low {
		r.fleet.squeezed(false)
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

var (
	maximum = regexp.MustCompile(`^statistics: max simultaneous .* connection=(\d+)`)
	counted = regexp.MustCompile(`(\w[\w -]*)=(\d+)`)
)

// wantBoundsMet wants the daemon to say that it had met its bounds, and kept them.
func (r *trial) wantBoundsMet() {
	sum := map[string]int{}
	for _, line := range r.daemon.Texts() {
		if match := maximum.FindStringSubmatch(line); match != nil {
			if n, _ := strconv.Atoi(match[1]); n > sizeLimit {
				r.fault("%d connections were cached, more than %d", n, sizeLimit)
			}
		}
		if counts, ok := strings.CutPrefix(line, "closed:"); ok {
			for _, match := range counted.FindAllStringSubmatch(counts, -1) {
				n, _ := strconv.Atoi(match[2])
				sum[match[1]] += n
			}
		}
	}
	r.t.Logf("the daemon counted %v", sum)
	if *duration < time.Minute {
		return
	}
	for _, name := range []string{"evicted", "hung-up", "displaced bindings", "lowered ttl", "lost descriptors", "delayed clients", "disconnected clients"} {
		if sum[name] == 0 {
			r.fault("the daemon counted no %s", name)
		}
	}
}

// wantFlat wants memory not to grow, and looks at the number of threads.
func (r *trial) wantFlat() {
	m := r.monitor
	if len(m.samples) < 10 {
		r.fault("there are %d samples only", len(m.samples))
		return
	}
	first, last := m.thirds(func(s sample) float64 { return float64(s.memory) })
	threads := m.most(func(s sample) int { return s.threads })
	r.t.Logf("memory %.1f MB, then %.1f MB; at most %d threads, %d descriptors", first/1e6, last/1e6,
		threads, m.most(func(s sample) int { return s.descriptors }))
	if last > first*3/2+8e6 {
		r.fault("memory grew from %.1f MB to %.1f MB", first/1e6, last/1e6)
	}
	if threads > mostThreads {
		r.fault("the daemon had %d threads", threads)
	}
}

// write writes what was measured, where that is asked for.
func (r *trial) write() {
	if *out == "" {
		return
	}
	err := os.MkdirAll(*out, 0o755)
	if err == nil {
		err = errors.Join(r.monitor.writeCSV(filepath.Join(*out, "soak.csv")), r.monitor.draw(*out))
	}
	if err != nil {
		r.t.Error(err)
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
