package protocol

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
	"github.com/scache/scache/internal/master"
)

var (
	binary string // the daemon under test
	stock  bool   // it is Postfix's own

	record = flag.Bool("record", false, "record transcripts of Postfix's own daemon")
)

// patience bounds every wait for something that has to happen. It is long: the
// tests are about bytes, counts and order, not about speed.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Parse()
	// Most tests wait most of the time, each on a daemon of its own.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("12")
	}
	var (
		remove func()
		err    error
	)
	if binary, remove, err = lab.UnderTest(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	stock = !lab.IsGo(binary)
	return m.Run()
}

// stockScache names Postfix's own daemon, without which some tests have no sense.
func stockScache(t *testing.T) string {
	t.Helper()
	path, err := lab.StockScache()
	if err != nil {
		t.Fatalf("%v; make test installs what is missing", err)
	}
	return path
}

// noteInputs tells the cache of go test what the results depend on: SCACHE_BINARY
// and our sources. It notes what tests look at, but not what TestMain does.
var noteInputs = sync.OnceFunc(func() {
	if os.Getenv("SCACHE_BINARY") != "" {
		os.Stat(binary)
		return
	}
	filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == ".git" {
			return filepath.SkipDir
		}
		return err
	})
})

// better marks what our daemon does better than Postfix's.
func better(t testing.TB, how string) {
	t.Helper()
	if stock {
		t.Skipf("better than stock: %s", how)
	}
}

// A daemon is the daemon under test, or another to compare it with.
type daemon struct {
	*master.Daemon
	t testing.TB
}

// start starts the daemon under test as Debian's master.cf does, with a limit
// of TTLs that is no matter, and further words of the master.cf line.
func start(t testing.TB, words ...string) *daemon {
	t.Helper()
	return startWith(t, master.Config{
		Unprivileged: true,
		Chroot:       true,
		Args:         append([]string{"-o", "connection_cache_ttl_limit=1h"}, words...),
	})
}

func startWith(t testing.TB, cfg master.Config) *daemon {
	t.Helper()
	noteInputs()
	if cfg.Binary == "" {
		cfg.Binary = binary
	}
	if os.Geteuid() != 0 {
		t.Skip("master(8) starts its daemons as root")
	}
	d, err := master.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s: %q", filepath.Base(cfg.Binary), d.Texts())
		}
		d.Close()
	})
	return &daemon{d, t}
}

// leave has the daemon leave as a reload does.
func (d *daemon) leave() {
	d.t.Helper()
	d.CloseStatus()
	d.wantExit(0)
}

func (d *daemon) wantExit(status int) {
	d.t.Helper()
	state, err := d.Wait(patience)
	if err != nil {
		d.t.Fatal(err)
	}
	if !state.Exited() || state.ExitCode() != status {
		d.t.Fatalf("the daemon ended with %v, not exit status %d", state, status)
	}
}

// fds is the number of descriptors the daemon has open.
func (d *daemon) fds() int {
	d.t.Helper()
	n, err := d.FDCount()
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// wantFDs waits until the daemon has n descriptors open.
func (d *daemon) wantFDs(n int) {
	d.t.Helper()
	eventually(d.t, func() error {
		if have := d.fds(); have != n {
			return fmt.Errorf("the daemon has %d descriptors open, not %d", have, n)
		}
		return nil
	})
}

// settled returns the number of descriptors that the daemon has with no client
// and nothing cached: the first client has come and gone.
func (d *daemon) settled() int {
	d.t.Helper()
	c := d.dial()
	with := d.fds()
	c.close()
	d.wantFDs(with - 1)
	return with - 1
}

var errNotYet = errors.New("it has not happened yet")

// eventually waits until f is content.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
