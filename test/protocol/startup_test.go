package protocol

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/internal/master"
)

// PROTOCOL.md, "The process": errors at the start, and main.cf.

// wantFatal expects the daemon to end over an error: one line in the log, a
// pause of a second, exit status 1.
func (d *daemon) wantFatal(began time.Time, text string) {
	d.t.Helper()
	d.wantExit(1)
	if lasted := time.Since(began); lasted < 900*time.Millisecond {
		d.t.Errorf("ended after %v, without a pause", lasted)
	}
	var fatal []string
	for _, line := range d.Texts() {
		if strings.HasPrefix(line, "fatal: ") {
			fatal = append(fatal, line)
		}
	}
	if len(fatal) != 1 || text != "" && fatal[0] != "fatal: "+text {
		d.t.Errorf("logged %q, not %q", d.Texts(), "fatal: "+text)
	}
}

func TestStartUpErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		cfg  master.Config
		text string
	}{
		{"no -l", master.Config{NotAlone: true},
			"service scache requires a process limit of 1"},
		{"no -l, other name", master.Config{NotAlone: true, Service: "conncache"},
			"service conncache requires a process limit of 1"},
		{"unknown option", master.Config{Args: []string{"-q"}},
			"invalid option: q"},
		{"bad time", master.Config{Args: []string{"-o", "connection_cache_ttl_limit=later"}},
			"parameter connection_cache_ttl_limit: bad time value or unit: later"},
		{"bad time in main.cf", master.Config{MainCF: "connection_cache_ttl_limit = later\n"},
			"parameter connection_cache_ttl_limit: bad time value or unit: later"},
		{"bad unit", master.Config{Args: []string{"-o", "connection_cache_status_update_time=5y"}},
			"parameter connection_cache_status_update_time: bad time value or unit: 5y"},
		{"below the minimum", master.Config{Args: []string{"-o", "connection_cache_ttl_limit=0"}},
			"invalid connection_cache_ttl_limit: 0 (min 1)"},
		{"below the minimum, too", master.Config{Args: []string{"-o", "connection_cache_status_update_time=0"}},
			"invalid connection_cache_status_update_time: 0 (min 1)"},
		{"negative", master.Config{MainCF: "connection_cache_ttl_limit = -1\n"},
			"parameter connection_cache_ttl_limit: bad time value or unit: -1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.cfg.Unprivileged, test.cfg.Chroot = true, true
			began := time.Now()
			startWith(t, test.cfg).wantFatal(began, test.text)
		})
	}
}

func TestNoMainCF(t *testing.T) {
	t.Parallel()
	began := time.Now()
	d := startWith(t, master.Config{Unprivileged: true, Chroot: true, NoMainCF: true})
	d.wantFatal(began, "open "+d.ConfigDir+"/main.cf: No such file or directory")
}

func TestSurplusArgument(t *testing.T) {
	t.Parallel()
	better(t, "stock dies at the first request")
	began := time.Now()
	startWith(t, master.Config{Unprivileged: true, Chroot: true, Args: []string{"surplus"}}).wantFatal(began, "")
}

// What a value expands to is seen in the complaint about it.
func TestMainCFExpansion(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ mainCF, value string }{
		"the three forms": {
			"name = later\nconnection_cache_ttl_limit = $name ${name} $(name)\n",
			"later later later"},
		"in sequence": {
			"connection_cache_ttl_limit = a$one\none = b$two\ntwo = c\n",
			"abc"},
		"continuation": {
			"connection_cache_ttl_limit = one\n two\n# a comment\n\n\t\n   # one more\n three\n",
			"one two three"},
		"continuation of nothing": {
			"connection_cache_ttl_limit =\n later\n",
			"later"},
		"the last counts": {
			"connection_cache_ttl_limit = first\nconnection_cache_ttl_limit = last\n",
			"last"},
		"spaces": {
			"connection_cache_ttl_limit=later   \n",
			"later"},
		"unknown": {
			"connection_cache_ttl_limit = x${unknown_parameter}y\n",
			"xy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			d := startWith(t, master.Config{Unprivileged: true, Chroot: true, MainCF: test.mainCF})
			d.wantFatal(began, "parameter connection_cache_ttl_limit: bad time value or unit: "+test.value)
		})
	}
}

// Values that are good for more than the default of two seconds.
func TestMainCFTimes(t *testing.T) {
	t.Parallel()
	long := func(t *testing.T, d *daemon) {
		t.Helper()
		c := d.dial()
		p := newPair(t)
		c.save("100000", "E", "EP", p.near)
		p.drop()
		if p.closedWithin(3500 * time.Millisecond) {
			t.Error("closed after no more than 3.5 s")
		}
		c.wantEndp("E", "EP", p)
	}
	for _, value := range []string{"100", "100s", "1m", "1h", "1d", "1w", "${hundred}s", "$(hundred)", "\n  # comment\n\n  1m"} {
		t.Run(fmt.Sprintf("%q", value), func(t *testing.T) {
			t.Parallel()
			long(t, startWith(t, master.Config{
				Unprivileged: true, Chroot: true,
				MainCF: "hundred = 100\nconnection_cache_ttl_limit = 1\nconnection_cache_ttl_limit = " + value + "\n",
			}))
		})
	}
	t.Run("-o wins", func(t *testing.T) {
		t.Parallel()
		long(t, startWith(t, master.Config{
			Unprivileged: true, Chroot: true,
			MainCF: "connection_cache_ttl_limit = 1\nlimit = 2m\n",
			Args:   []string{"-o", "connection_cache_ttl_limit=bad", "-o", "connection_cache_ttl_limit=$limit"},
		}))
	})
}

// A descriptor limit of 1024, as is usual, is raised to the hard one.
func TestSoftLimitIsRaised(t *testing.T) {
	t.Parallel()
	d := startWith(t, master.Config{
		Unprivileged: true, Chroot: true,
		Args:       []string{"-o", "connection_cache_ttl_limit=1h"},
		NoFileSoft: 1024, NoFileHard: 8192,
	})
	c := d.dial()
	p := newPair(t)
	const n = 5000
	for i := range n {
		c.save("1000", fmt.Sprint("E", i%100), prop(i), p.near)
	}
	if have := d.fds(); have < n {
		t.Errorf("%d descriptors", have)
	}
	for i := range n {
		c.wantEndp(fmt.Sprint("E", i%100), prop(i), p)
	}
	for i := range 100 {
		c.wantNoEndp(fmt.Sprint("E", i))
	}
}

// stderr is not for the daemon to write to: nobody reads it.
func TestNothingOnStderr(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d := startWith(t, master.Config{Unprivileged: true, Chroot: true, NotAlone: true, Stderr: w})
	w.Close()
	d.wantExit(1)
	var b [1000]byte
	if n, _ := r.Read(b[:]); n > 0 {
		t.Errorf("written: %q", b[:n])
	}
}
