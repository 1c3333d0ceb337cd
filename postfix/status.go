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
}

// newStatus wraps the descriptor of a status channel, and owns it from now on.
func newStatus(fd, pid int, generation uint32) *Status {
	return &Status{fd: fd, pid: uint32(pid), generation: generation}
}

// FD is the descriptor to watch for end of file, -1 if there is none.
func (s *Status) FD() int {
	if s == nil {
		return -1
	}
	return s.fd
}

// Announce reports a change from busy to available: both records in one piece,
// which Linux takes whole or not at all. It does not wait for a master that does
// not read: it would only throttle us after a crash.
func (s *Status) Announce() {
	if s == nil {
		return
	}
	records := s.append(s.append(make([]byte, 0, 2*statusRecord), 0), 1)
	_ = unix.Sendto(s.fd, records, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
}

func (s *Status) append(b []byte, available uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, s.pid)
	b = binary.NativeEndian.AppendUint32(b, s.generation)
	return binary.NativeEndian.AppendUint32(b, available)
}
