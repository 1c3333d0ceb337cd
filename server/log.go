package server

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
	"github.com/scache/scache/timerwheel"
)

// Logger takes a line each. It must not block for longer than a moment: all clients wait.
type Logger interface {
	Infof(format string, arguments ...any)
	Warningf(format string, arguments ...any)
}

// namedLog puts the name of a cache in front of its lines, if there are several.
type namedLog struct {
	server *Server
	name   string
}

func (l namedLog) Infof(format string, arguments ...any) {
	l.server.config.Log.Infof(l.prefix()+format, arguments...)
}

func (l namedLog) Warningf(format string, arguments ...any) {
	l.server.config.Log.Warningf(l.prefix()+format, arguments...)
}

func (l namedLog) prefix() string {
	if len(l.server.caches) < 2 {
		return ""
	}
	return strings.ReplaceAll(l.name, "%", "%%") + ": "
}

// faults logs what clients do wrong, at a bounded rate: a client that is broken, or
// hostile, must not fill the log.
type faults struct {
	log        Logger
	interval   timerwheel.Tick // number of the interval that is counted
	lines      int             // in it
	suppressed int             // since the last line
	total      int             // suppressed since the start
}

const (
	faultInterval = 10 * ticksPerSecond
	faultLines    = 10 // an interval
)

func (f *faults) warn(now timerwheel.Tick, format string, arguments ...any) {
	if interval := now / faultInterval; interval != f.interval {
		f.interval, f.lines = interval, 0
	}
	if f.lines++; f.lines > faultLines {
		f.suppressed++
		f.total++
		return
	}
	if f.suppressed > 0 {
		f.log.Warningf("%d similar warnings were not logged", f.suppressed)
		f.suppressed = 0
	}
	f.log.Warningf(format, arguments...)
}

// fault logs what the client did wrong.
func (s *session) fault(format string, arguments ...any) {
	s.cache.faults.warn(s.cache.now, "%v: "+format, append([]any{clientName{s}}, arguments...)...)
}

// clientName is a client in the log.
type clientName struct{ session *session }

func (n clientName) String() string {
	if who := n.session.cache.culprit; who != nil {
		return fmt.Sprintf("client %d (%s)", n.session.client, who(n.session.client))
	}
	return fmt.Sprintf("client %d", n.session.client)
}

// culprit tells who has connected.
func culprit(fd int) string {
	who, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("pid %d, uid %d", who.Pid, who.Uid)
}

// trace logs a request and what became of it.
func (s *session) trace(r *proto.Request) {
	rule := ""
	if save := r.Op == proto.SaveDestination || r.Op == proto.SaveEndpoint; save && !r.Malformed && s.terms != nil && s.terms.line > 0 {
		rule = fmt.Sprintf(", policy line %d", s.terms.line)
	}
	s.cache.log.Infof("client %d: %v destination %q endpoint %q ttl %d: %v%s",
		s.client, r.Op, beginning(r.Destination), beginning(r.Endpoint), r.TTL, s.state, rule)
}

// beginning is as much of a label as a line has room for; to quote 4 MiB would keep all clients waiting.
func beginning(label []byte) []byte { return label[:min(len(label), 1000)] }
