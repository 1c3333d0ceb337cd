package deb_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// wantWhole asserts that there is a scache that works, whichever.
func wantWhole(t *testing.T) {
	t.Helper()
	if bytes.Equal(read(t, place), stock) {
		wantInPlace(t, stock)
		return
	}
	wantInPlace(t, first.program)
}

// interrupt runs dpkg while a tool kills the maintainer script that calls it for the
// place. Whatever that was, there is a scache that works.
func interrupt(t *testing.T, tool string, args ...string) {
	t.Helper()
	path := "/usr/bin/" + tool
	dir := t.TempDir()
	own, deadly := filepath.Join(dir, "own"), filepath.Join(dir, "deadly")
	must(t, os.WriteFile(own, read(t, path), 0o755))
	script := fmt.Sprintf("#!/bin/sh\ncase $* in *--list*) ;; *%s*) kill -9 $PPID; exit 1 ;; esac\nexec %s \"$@\"\n", place, own)
	must(t, os.WriteFile(deadly, []byte(script), 0o755))
	must(t, unix.Mount(deadly, path, "", unix.MS_BIND, ""))
	_, err := command("dpkg", args...)
	must(t, unix.Unmount(path, 0))
	if err == nil {
		t.Fatalf("dpkg %q was not interrupted at %s", args, tool)
	}
	wantWhole(t)
}

// Interrupted at any step, installation and removal leave a cache that works, and
// go on when they are asked again, or the other is.
func TestInterrupted(t *testing.T) {
	w := watchPlace(t)
	for _, tool := range []string{"ln", "dpkg-divert", "cp", "sync", "mv"} {
		t.Run("install/"+tool, func(t *testing.T) {
			purgeAfterwards(t)
			interrupt(t, tool, "-i", first.path)
			does(t, "dpkg", "--configure", "scache")
			wantOurs(t, first)
		})
		t.Run("install and remove/"+tool, func(t *testing.T) {
			purgeAfterwards(t)
			interrupt(t, tool, "-i", first.path)
		})
	}
	for _, tool := range []string{"cp", "sync", "mv", "dpkg-divert", "rm"} {
		t.Run("remove/"+tool, func(t *testing.T) {
			purgeAfterwards(t)
			does(t, "dpkg", "-i", first.path)
			interrupt(t, tool, "-r", "scache")
		})
		t.Run("remove and install/"+tool, func(t *testing.T) {
			purgeAfterwards(t)
			does(t, "dpkg", "-i", first.path)
			interrupt(t, tool, "-r", "scache")
			does(t, "dpkg", "-i", first.path)
			wantOurs(t, first)
		})
	}
	w.replaced(t)
}

// An upgrade that fails leaves the version that was there.
func TestAbortedUpgrade(t *testing.T) {
	whole := read(t, next.path)
	for _, row := range []struct {
		name  string
		broke func(t *testing.T, path string)
	}{
		{"cut short", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, whole[:len(whole)/2], 0o644))
		}},
		{"refused", func(t *testing.T, path string) {
			tree := t.TempDir()
			does(t, "dpkg-deb", "-R", next.path, tree)
			must(t, os.WriteFile(tree+"/DEBIAN/preinst", []byte("#!/bin/sh\nexit 1\n"), 0o755))
			does(t, "dpkg-deb", "-b", tree, path)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			purgeAfterwards(t)
			does(t, "dpkg", "-i", first.path)
			broken := filepath.Join(t.TempDir(), "broken.deb")
			row.broke(t, broken)
			w := watchPlace(t)
			fails(t, "dpkg", "-i", broken)
			w.replaced(t)
			wantOurs(t, first)
		})
	}
}

// A removal that fails before anything is gone leaves the package installed.
func TestAbortedRemoval(t *testing.T) {
	purgeAfterwards(t)
	does(t, "dpkg", "-i", first.path)
	const prerm = "/var/lib/dpkg/info/scache.prerm"
	own := read(t, prerm)
	must(t, os.WriteFile(prerm, append(own, "exit 1\n"...), 0o755))
	w := watchPlace(t)
	fails(t, "dpkg", "-r", "scache")
	w.replaced(t)
	wantOurs(t, first)
	must(t, os.WriteFile(prerm, own, 0o755))
}

// Removal works from a state in which dpkg does not run prerm.
func TestRemovalOfUnpacked(t *testing.T) {
	purgeAfterwards(t)
	does(t, "dpkg", "-i", first.path)
	w := watchPlace(t)
	does(t, "dpkg", "--unpack", next.path)
	wantInPlace(t, first.program)
	does(t, "dpkg", "-r", "scache")
	w.replaced(t)
	wantStock(t)
}

// A diversion by somebody else is not touched.
func TestDivertedAlready(t *testing.T) {
	purgeAfterwards(t)
	divert(t, "--add", place)
	if told := fails(t, "dpkg", "-i", first.path); !strings.Contains(told, "is diverted already, by LOCAL") {
		t.Errorf("no explanation:\n%s", told)
	}
	wantInPlace(t, stock)
	divert(t, "--remove", place)
	does(t, "dpkg", "--configure", "scache")
	wantOurs(t, first)
}

// Nor is one of the manual page. It would divert the page of Postfix 3.10 to the same place as ours.
func TestPageDivertedAlready(t *testing.T) {
	purgeAfterwards(t)
	divert(t, "--add", page)
	if told := fails(t, "dpkg", "-i", first.path); !strings.Contains(told, "clashes with 'local diversion of "+page) {
		t.Errorf("no explanation:\n%s", told)
	}
	wantStock(t)
	divert(t, "--remove", page)
	does(t, "dpkg", "-i", first.path)
	wantOurs(t, first)
}

// divert adds or removes an administrator's own diversion.
func divert(t *testing.T, action, file string) {
	t.Helper()
	does(t, "dpkg-divert", "--local", "--no-rename", "--divert", file+".mine", action, file)
}

// Postfix goes, by force, and comes back.
func TestPostfixRemoved(t *testing.T) {
	if postfixDeb == "" {
		t.Skip("the postfix package cannot be downloaded")
	}
	does(t, "dpkg", "-i", first.path)
	does(t, "dpkg", "--force-depends", "-r", "postfix")
	wantInPlace(t, first.program)
	does(t, "dpkg", "-i", postfixDeb)
	wantOurs(t, first)

	does(t, "dpkg", "--force-depends", "-r", "postfix")
	does(t, "dpkg", "-P", "scache")
	if read(t, place) != nil || read(t, distrib) != nil {
		t.Errorf("something is left at %s", place)
	}
	does(t, "dpkg", "-i", postfixDeb)
	wantStock(t)
}
