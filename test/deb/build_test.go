package deb_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// built is a package that make has built.
type built struct {
	tree    string // of the sources
	path    string
	version string
	program []byte
}

// buildBoth builds the package twice, the second time as a later version, from a
// copy of the sources.
func buildBoth(dir string) (first, next built, err error) {
	version, err := os.ReadFile("../../VERSION")
	if err != nil {
		return
	}
	tree := filepath.Join(dir, "sources")
	if err = copySources(tree); err != nil {
		return
	}
	if first, err = build(tree, strings.TrimSpace(string(version)), "make -s deb"); err != nil {
		return
	}
	next, err = build(tree, first.version+"+next", "make -s deb VERSION="+first.version+"+next")
	return
}

// copySources copies what the package is made of.
func copySources(tree string) error {
	script := `mkdir -p "$1" && tar -C ../.. --exclude=./.git --exclude=./build -cf - . | tar -C "$1" -xf -`
	_, err := command("sh", "-c", script, "sh", tree)
	return err
}

// build runs a command that builds the package of this version in the tree.
func build(tree, version, script string) (built, error) {
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1767225600")
	if out, err := cmd.CombinedOutput(); err != nil {
		return built{}, fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	found, err := filepath.Glob(filepath.Join(tree, "build", "scache_"+version+"_*.deb"))
	if err != nil || len(found) != 1 {
		return built{}, fmt.Errorf("%s built %q, %v", script, found, err)
	}
	b := built{tree: tree, path: found[0], version: version}
	b.program, err = os.ReadFile(filepath.Join(tree, "build/scache"))
	return b, err
}

// The same sources give the same bytes, wherever and under whatever settings.
func TestReproducible(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "somewhere/else")
	must(t, copySources(tree))
	again, err := build(tree, first.version, "umask 077 && GOFLAGS=-ldflags=-X=main.version=wrong make -s deb")
	must(t, err)
	if !bytes.Equal(read(t, first.path), read(t, again.path)) {
		t.Errorf("%s and %s differ", first.path, again.path)
	}
}

// A directory with spaces is refused, and what a shell would make of it is left alone.
func TestMakeTakesNoSpaces(t *testing.T) {
	root := t.TempDir()
	bystander := root + "/a"
	must(t, os.WriteFile(bystander, nil, 0o644))
	for _, goal := range []string{"install", "uninstall"} {
		out, err := exec.Command("make", "-s", "-C", first.tree, goal, "DESTDIR="+root+"/a b").CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("must not have spaces")) {
			t.Errorf("%s: %v, %s", goal, err, out)
		}
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v; want the bystander alone", entries, err)
	}
}

// Where there is no package: what make installs it can take away.
func TestMakeInstall(t *testing.T) {
	root := t.TempDir()
	does(t, "make", "-s", "-C", first.tree, "install", "DESTDIR="+root, "PREFIX=/opt/scache")
	got := does(t, root+"/opt/scache/sbin/scache", "-version")
	if got != "scache "+first.version+"\n" {
		t.Errorf("version %q", got)
	}
	if read(t, root+"/opt/scache/share/man/man8/scache.8") == nil {
		t.Error("no manual page")
	}
	for _, unit := range units(t) {
		if text := read(t, root+"/opt/scache/lib/systemd/system/"+unit); text == nil || bytes.Contains(text, []byte("/usr/sbin/scache")) {
			t.Errorf("%s is missing, or names the program in another place:\n%s", unit, text)
		}
	}
	configuration := root + "/etc/default/scache"
	must(t, os.WriteFile(configuration, []byte("mine"), 0o644))
	does(t, "make", "-s", "-C", first.tree, "install", "DESTDIR="+root, "PREFIX=/opt/scache")
	does(t, "make", "-s", "-C", first.tree, "uninstall", "DESTDIR="+root, "PREFIX=/opt/scache")
	left := strings.Fields(does(t, "find", root, "-type", "f"))
	slices.Sort(left)
	if !slices.Equal(left, []string{configuration, configuration + "-exporter"}) || string(read(t, configuration)) != "mine" {
		t.Errorf("left: %q, want the configuration as it was", left)
	}
}

func TestLintian(t *testing.T) {
	if _, err := exec.LookPath("lintian"); err != nil {
		skipped("lintian", err)
		t.Skip(err)
	}
	does(t, "lintian", "--fail-on", "error,warning", first.path)
}
