// Package deb_test builds the Debian package, and installs, upgrades, breaks and removes it with
// the real dpkg, beside the real postfix package and under a running Postfix. All of it
// happens in a namespace whose /usr, /etc and /var are overlays: the machine's own
// files, and the tests that use them at the same time, do not notice.
package deb_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// place is where master(8) looks for its scache.
const (
	place   = "/usr/lib/postfix/sbin/scache"
	distrib = place + ".distrib"
	page    = "/usr/share/man/man8/scache.8.gz"
)

var (
	stock      []byte // Postfix's own scache
	first      built  // the package
	next       built  // the same, with a higher version
	postfixDeb string // the postfix package; empty if it cannot be had
)

func TestMain(m *testing.M) {
	if !inNamespace() {
		os.Exit(enterNamespace())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "scache-deb-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func prepare(dir string) (err error) {
	if stock, err = os.ReadFile(place); err != nil {
		return fmt.Errorf("%w\nThese tests need Debian's postfix: `make test` installs it first.", err)
	}
	if first, next, err = buildBoth(dir); err != nil {
		return err
	}
	if postfixDeb, err = download(dir); err != nil {
		skipped("upgrades of the postfix package", err)
	}
	return nil
}

// must ends the test at the first step that fails.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// command runs a program that asks no questions.
func command(name string, args ...string) (output string, err error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "PATH=/usr/sbin:/sbin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return string(out), err
}

// does runs a program that has to succeed.
func does(t *testing.T, name string, args ...string) (output string) {
	t.Helper()
	output, err := command(name, args...)
	must(t, err)
	return output
}

// fails runs a program that must not.
func fails(t *testing.T, name string, args ...string) (output string) {
	t.Helper()
	output, err := command(name, args...)
	if err == nil {
		t.Fatalf("%s %q succeeded:\n%s", name, args, output)
	}
	return output
}

// read is a file's contents, and nil if there is none.
func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return content
}

// wantInPlace asserts which scache master(8) finds, and that it can be executed.
func wantInPlace(t *testing.T, program []byte) {
	t.Helper()
	if !bytes.Equal(read(t, place), program) {
		t.Fatalf("%s is not the one expected", place)
	}
	if info, err := os.Stat(place); err != nil || info.Mode() != 0o755 {
		t.Errorf("%s: mode %v, %v", place, info.Mode(), err)
	}
}

// wantOurs asserts that a version of ours is installed and Postfix's own kept.
func wantOurs(t *testing.T, b built) {
	t.Helper()
	wantInPlace(t, b.program)
	if !bytes.Equal(read(t, distrib), stock) {
		t.Errorf("%s is not Postfix's own", distrib)
	}
	if got := does(t, place, "-version"); got != "scache "+b.version+"\n" {
		t.Errorf("version %q, want %s", got, b.version)
	}
	if got := does(t, "dpkg-divert", "--listpackage", place); got != "scache\n" {
		t.Errorf("diverted by %q", got)
	}
	if got := status(t); got != "installed" {
		t.Errorf("the package is %s", got)
	}
	if read(t, page) != nil && !strings.Contains(does(t, "zcat", page), "connection_cache_policy_file") { // dpkg may be told to leave pages out
		t.Error("scache(8) is another one's")
	}
}

// wantStock asserts that Postfix's own is back, and nothing of ours remains at its place.
func wantStock(t *testing.T) {
	t.Helper()
	wantInPlace(t, stock)
	if read(t, distrib) != nil || read(t, place+".new") != nil {
		t.Errorf("something is left beside %s", place)
	}
	if got := does(t, "dpkg-divert", "--listpackage", place); got != "" {
		t.Errorf("still diverted by %q", got)
	}
}

// status is what dpkg says of our package, in a word.
func status(t *testing.T) string {
	t.Helper()
	word, _ := command("dpkg-query", "-W", "-f", "${db:Status-Status}", "scache")
	return word
}

// purgeAfterwards ends a test with the machine as it was.
func purgeAfterwards(t *testing.T) {
	t.Cleanup(func() {
		does(t, "dpkg", "--purge", "scache")
		wantStock(t)
	})
}
