package postfix

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// statusRecord is the size of one report (master/master_proto.h, MASTER_STATUS):
// process ID, generation, availability, each an int in host order.
const statusRecord = 12

// Status is the channel on which master(8) is told whether this process takes
// clients. It is a stream shared with a blocking peer, so reports never wait; and
// end of file on it is master's word to leave.
//
// With a process limit of 1 master has nobody else to give clients to, so more
// than one report would tell it nothing. That one is needed: a process that ends
// abnormally before it has ever said "available" is not started again for a
// minute (master/master_spawn.c, master_reap_child).
//
// A nil Status reports to nobody.
type Status struct {
	fd         int
	pid        uint32
	generation uint32
	tail       []byte // what is left of a report that went out in part
	announced  bool
}

// NewStatus wraps the descriptor of a status channel, and owns it from now on.
func NewStatus(fd, pid int, generation uint32) *Status {
	return &Status{fd: fd, pid: uint32(pid), generation: generation}
}

// FD is the descriptor to watch for end of file, -1 if there is none.
func (s *Status) FD() int {
	if s == nil {
		return -1
	}
	return s.fd
}

// Announce reports, the first time that it is called, a change from busy to
// available: both records in one piece, so that master sees both or none.
func (s *Status) Announce() {
	if s == nil || s.announced {
		return
	}
	s.announced = s.send(s.append(s.append(nil, 0), 1))
}

// Report tells master that this process is available, or busy. It returns false
// if the channel did not take it; master then believes what it was told last.
func (s *Status) Report(available bool) bool {
	if s == nil {
		return false
	}
	var avail uint32
	if available {
		avail = 1
	}
	return s.send(s.append(nil, avail))
}

func (s *Status) append(b []byte, avail uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, s.pid)
	b = binary.NativeEndian.AppendUint32(b, s.generation)
	return binary.NativeEndian.AppendUint32(b, avail)
}

// send writes records without waiting. Linux takes so few bytes whole or not at
// all; should it take a part, the rest goes first the next time, and nothing else
// can come between: master always reads whole records.
func (s *Status) send(records []byte) bool {
	if len(s.tail) > 0 {
		if s.tail = s.tail[s.write(s.tail):]; len(s.tail) > 0 {
			return false
		}
	}
	n := s.write(records)
	if n == 0 {
		return false
	}
	s.tail = append(s.tail, records[n:]...)
	return true
}

// write returns how many bytes were taken.
func (s *Status) write(b []byte) int {
	for {
		n, err := unix.SendmsgN(s.fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		return max(n, 0)
	}
}
