package deb_test

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// watch is the kernel's record of what happens to the name of the place. It
// misses no moment, as looking again and again would.
type watch int

func watchPlace(t *testing.T) watch {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	_, err = unix.InotifyAddWatch(fd, filepath.Dir(place), unix.IN_DELETE|unix.IN_MOVE|unix.IN_CREATE|unix.IN_MODIFY)
	must(t, err)
	return watch(fd)
}

// replaced counts how many times a rename has replaced the program since the last call. In any
// other way it would have been missing, or half a file, for a moment: that fails the test.
func (w watch) replaced(t *testing.T) (times int) {
	t.Helper()
	for _, mask := range w.events(t) {
		if mask&unix.IN_MOVED_TO == 0 {
			t.Errorf("%s was empty or half a file: inotify(7) event %#x", place, mask)
		}
		times++
	}
	return times
}

func (w watch) events(t *testing.T) (masks []uint32) {
	t.Helper()
	buffer := make([]byte, 1<<16)
	for {
		n, err := unix.Read(int(w), buffer)
		if err == unix.EAGAIN {
			return masks
		}
		must(t, err)
		for rest := buffer[:n]; len(rest) > 0; {
			mask := binary.NativeEndian.Uint32(rest[4:])
			end := unix.SizeofInotifyEvent + binary.NativeEndian.Uint32(rest[12:])
			if mask&unix.IN_Q_OVERFLOW != 0 {
				t.Fatal("inotify(7) has lost events")
			}
			name := string(bytes.TrimRight(rest[unix.SizeofInotifyEvent:end], "\x00"))
			if name == filepath.Base(place) {
				masks = append(masks, mask)
			}
			rest = rest[end:]
		}
	}
}
