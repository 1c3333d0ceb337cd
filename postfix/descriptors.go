package postfix

import (
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// The descriptors that master(8) hands over (master/master_proto.h).
const (
	flowReadFD  = 3
	flowWriteFD = 4
	statusFD    = 5
	listenFD    = 6
)

// adoptDescriptors checks that the status channel and n listening sockets are
// there, and keeps all that master handed over from leaking into children. To be
// called before anything is opened: until then a socket is master's. (Go's runtime
// may have taken free numbers for files of its own, which are no sockets.)
//
// The runtime has also raised the soft limit of descriptors to the hard one by now,
// as Postfix's daemons do themselves.
func adoptDescriptors(n int) (listeners []int, err error) {
	unix.CloseOnExec(flowReadFD)
	unix.CloseOnExec(flowWriteFD)
	if _, err := unix.GetsockoptInt(statusFD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, fmt.Errorf("status channel, descriptor %d: %s", statusFD, cause(err))
	}
	unix.CloseOnExec(statusFD)
	for fd := listenFD; n > 0; fd, n = fd+1, n-1 {
		if err := adoptListener(fd); err != nil {
			return nil, fmt.Errorf("listening socket, descriptor %d: %s", fd, cause(err))
		}
		listeners = append(listeners, fd)
	}
	return listeners, nil
}

// adoptListener makes sure that accept(2) can be called on fd.
func adoptListener(fd int) error {
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return err
	}
	if listening == 0 {
		return errors.New("not listening")
	}
	unix.CloseOnExec(fd)
	return nil
}

// ignoreSignals keeps the process from dying of a peer that left or of a file
// that is too large (master/multi_server.c, multi_server_main).
func ignoreSignals() { signal.Ignore(syscall.SIGPIPE, syscall.SIGXFSZ) }

// isTerminal tells whether fd is a terminal, as isatty(3) does.
func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}
