// Package systemd_test runs the cache as the units in deploy/systemd say, under a real systemd
// that has namespaces of its own, and has systemd judge the units.
package systemd_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/scache/scache/internal/lab"
)

var (
	binary    string // the scache under test
	scachectl string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var remove func()
	var err error
	if binary, remove, err = lab.UnderTest(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	dir, err := os.MkdirTemp("", "systemd")
	if err == nil {
		defer os.RemoveAll(dir)
		scachectl, err = lab.BuildCtl(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// skip is loud: go test shows skipped tests with -v only.
func skip(t *testing.T, why string) {
	t.Helper()
	fmt.Fprintf(os.Stderr, "\nSKIPPED: %s: %s\n\n", t.Name(), why)
	t.Skip(why)
}
