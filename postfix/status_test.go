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
	s := NewStatus(pair[1], 5408, 15)
	wantEqual(t, "descriptor", s.FD(), pair[1])
	s.Announce()
	s.Announce()
	wantSlice(t, "announced once", records(t, pair[0]), [][3]uint32{{5408, 15, 0}, {5408, 15, 1}})
	wantEqual(t, "reported", s.Report(false) && s.Report(true), true)
	wantSlice(t, "reports", records(t, pair[0]), [][3]uint32{{5408, 15, 0}, {5408, 15, 1}})
}

// A master that does not read stops nobody, and never sees a part of a record.
func TestStatusFull(t *testing.T) {
	pair := socketpair(t)
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	s := NewStatus(pair[1], 1, 1)
	taken := 0
	for s.Report(taken%2 == 0) {
		taken++
	}
	if s.Announce(); s.announced {
		t.Error("announced into a full channel")
	}
	wantEqual(t, "records", len(records(t, pair[0])), taken)
	s.Announce()
	wantSlice(t, "announced later", records(t, pair[0]), [][3]uint32{{1, 1, 0}, {1, 1, 1}})
}

func TestStatusTail(t *testing.T) {
	pair := socketpair(t)
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	s := NewStatus(pair[1], 1, 1)
	whole := s.append(nil, 1)
	s.write(whole[:5]) // as if the kernel had taken no more
	s.tail = whole[5:]
	s.Report(false)
	wantSlice(t, "records", records(t, pair[0]), [][3]uint32{{1, 1, 1}, {1, 1, 0}})
}

func TestStatusWithoutMaster(t *testing.T) {
	pair := socketpair(t)
	defer unix.Close(pair[1])
	unix.Close(pair[0])
	s := NewStatus(pair[1], 1, 1)
	wantEqual(t, "reported", s.Report(true), false) // and no SIGPIPE
	s.Announce()

	var none *Status
	none.Announce()
	wantEqual(t, "none", none.Report(true), false)
	wantEqual(t, "none", none.FD(), -1)
}
