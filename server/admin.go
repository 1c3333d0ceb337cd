package server

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

// Admin requests: what an operator sees of a cache, and how it is steered. A request that
// has much to do, or to say, is an errand: the session is in state onErrand, and each step does
// a portion, as long as the client reads; other clients are served between portions. An errand
// holds a few numbers, nothing of the store.

// errand does a portion of what was asked for; done means that the reply is complete.
type errand func() (done bool)

// admin serves an admin request.
func (s *session) admin(r *proto.Request) {
	request, ok := proto.DecodeAdmin(r.Admin)
	if !ok {
		s.fault("%v: bad or missing request parameter", request.Op)
		s.out = proto.AppendStatus(s.out, proto.Bad)
		return
	}
	c := s.cache
	c.counters.admin++
	if refusal := c.administrator(s.client); refusal != "" {
		c.counters.denied++
		s.fault("%v: %s", request.Op, refusal)
		s.out = proto.AppendRefusal(s.out, proto.Denied, refusal)
		return
	}
	subject := string(beginning(request.Subject)) // one of a few words, or refused
	switch request.Op {
	case proto.AdminStatistics:
		s.out = c.appendStatistics(s.out)
	case proto.AdminDestinations:
		s.listDestinations()
	case proto.AdminList:
		s.list(subject)
	case proto.AdminFlush:
		s.flush(subject, string(request.Value))
	case proto.AdminPause, proto.AdminResume:
		s.pause(request.Op == proto.AdminPause)
	case proto.AdminLimits:
		s.out = c.appendLimits(s.out)
	case proto.AdminSetLimit:
		s.setLimit(subject, string(request.Value))
	}
}

// begin sends the session on an errand.
func (s *session) begin(e errand) { s.errand, s.others, s.state = e, noneYet, onErrand }

// portion does a portion of the errand.
func (s *session) portion() {
	if s.errand() {
		s.errand, s.state = nil, ready
	}
}

// refuseAdmin answers a request whose argument makes no sense.
func (s *session) refuseAdmin(format string, arguments ...any) {
	s.out = proto.AppendRefusal(s.out, proto.Failed, fmt.Sprintf(format, arguments...))
}

// note logs what an operator has done.
func (s *session) note(format string, arguments ...any) {
	s.cache.log.Infof("%v: "+format, append([]any{clientName{s}}, arguments...)...)
}

// pause lets the cache find nothing and keep nothing, or ends that.
func (s *session) pause(paused bool) {
	if mistake := s.cache.mistake; mistake != nil && !paused {
		s.refuseAdmin("nothing is cached until this is mended and Postfix reloaded: %v", mistake)
		return
	}
	if s.cache.paused != paused {
		s.cache.paused = paused
		s.note("paused: %v", paused)
	}
	r := reply{proto.AppendOK(s.out)}
	r.flag("paused", paused)
	s.out = proto.AppendEnd(r.out)
}

func (s *session) setLimit(name, value string) {
	n, err := strconv.Atoi(value)
	if err != nil {
		s.refuseAdmin("%s: %q is not a number", name, beginning([]byte(value)))
		return
	}
	if err := s.cache.setLimit(name, n); err != nil {
		s.refuseAdmin("%v", err)
		return
	}
	s.note("%s: %d", name, n)
	s.out = s.cache.appendLimits(s.out)
}

// administrator returns why a client may make no admin requests; empty if it may. It is asked
// for each, so that no other request pays for it.
func administrator(client int) (refusal string) {
	who, err := unix.GetsockoptUcred(client, unix.SOL_SOCKET, unix.SO_PEERCRED)
	switch {
	case err != nil:
		return fmt.Sprintf("not allowed: the kernel does not tell who asks: %v", err)
	case who.Uid != 0 && strangersLookLikeUs():
		return "not allowed: users cannot be told apart in this user namespace; it takes root"
	case who.Uid != 0 && !ownUser(who.Uid):
		return fmt.Sprintf("not allowed: user %d asks; it takes root, or user %d, which this cache runs as", who.Uid, unix.Geteuid())
	}
	return ""
}

// reply is one that is being written.
type reply struct{ out []byte }

func (r *reply) text(name, value string) { r.out = proto.AppendText(r.out, name, value) }

func (r *reply) number(name string, value int) { r.out = proto.AppendNumber(r.out, name, int64(value)) }

func (r *reply) flag(name string, value bool) {
	n := 0
	if value {
		n = 1
	}
	r.number(name, n)
}

func (r *reply) histogram(as proto.Histogram, h *histogram) {
	names, upTo := as.Names(), 0
	for i, n := range h.counts {
		upTo += n
		r.number(names[i], upTo)
	}
	r.number(names[len(names)-1], h.sum)
}
