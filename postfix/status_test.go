package postfix

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// records reads what waits at master's end, as (pid, generation, available).
func records(t *testing.T, fd int) [][3]uint32 {
	t.Helper()
	var all [][3]uint32
	buf := make([]byte, statusRecord)
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err != nil {
			return all
		}
		if n != statusRecord {
			t.Fatalf("a record of %d bytes", n)
		}
		var r [3]uint32
		for i := range r {
			r[i] = binary.NativeEndian.Uint32(buf[4*i:])
		}
		all = append(all, r)
	}
}

func TestStatus(t *testing.T) {
	pair := socketpair(t)
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	s := newStatus(pair[1], 5408, 15)
	wantEqual(t, "descriptor", s.FD(), pair[1])
	s.Announce()
	wantSlice(t, "announced", records(t, pair[0]), [][3]uint32{{5408, 15, 0}, {5408, 15, 1}})
}

// A master that does not read stops nobody, and never sees a part of a record.
func TestStatusFull(t *testing.T) {
	pair := socketpair(t)
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	s := newStatus(pair[1], 1, 1)
	for range 10_000 {
		s.Announce()
	}
	got := records(t, pair[0])
	if len(got) == 0 || len(got) == 20_000 || len(got)%2 != 0 {
		t.Errorf("%d records; want fewer than were sent, in pairs", len(got))
	}
}

func TestStatusWithoutMaster(t *testing.T) {
	pair := socketpair(t)
	defer unix.Close(pair[1])
	unix.Close(pair[0])
	newStatus(pair[1], 1, 1).Announce() // and no SIGPIPE

	var none *Status
	none.Announce()
	wantEqual(t, "none", none.FD(), -1)
}
