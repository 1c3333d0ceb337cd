package server

import (
	"bytes"

	"github.com/scache/scache/proto"
	"github.com/scache/scache/store"
)

// session is one client's side of the protocol: a pure state machine, which takes
// bytes and descriptors in and gives bytes and descriptors out. It makes no
// system call; type conn does its input and output.
//
// What each state makes of what the client sends (n is a message of any other
// kind, or an empty one):
//
//	                        request       dummy        n            a byte
//	ready                   answered      ignored      ignored
//	awaitingDescriptor                                              taken, with or without descriptor
//	awaitingGoAhead         put back,     hand over    put back
//	                        answered
//	handingOver             nothing is taken until the descriptor is gone
//	awaitingAcknowledgement answered      ready        ready
//	ended                   nothing is taken any longer
//	succeeding              nothing is taken until the server has decided
//	onErrand                nothing is taken until the reply is complete
//
// "Put back" is for the found connection; it is ours until it is acknowledged. The states and the
// dummies are those of Postfix on a system that defines CANT_WRITE_BEFORE_SENDING_FD and
// MUST_READ_AFTER_SENDING_FD, as Linux does (scache/scache.c).
type session struct {
	cache  *cache
	client int // its descriptor, as a name in the log
	state  state

	framer  proto.Framer
	scanned int      // bytes of the input that the framer has seen
	tooLong bool     // the message is longer than maxMessage; its beginning is dropped
	op      proto.Op // what it asks for

	// connection is outside the store, and the session's: prepared while the
	// state is awaitingDescriptor, found from awaitingGoAhead to
	// awaitingAcknowledgement, else nil.
	connection *store.Connection
	ttl        int32 // seconds, for the prepared one
	texts      int32 // bytes that the prepared one takes

	terms *terms // of the last save; nil without a policy
	bound uint32 // hash of the endpoint that they are for, if a connection may follow

	out []byte // replies to be sent, before any descriptor

	errand errand // in state onErrand
	others int    // what delivery agents had asked for, at its last portion
}

type state int

const (
	ready                   state = iota
	awaitingDescriptor            // save_endp: the dummy was sent, a byte with the descriptor is due
	awaitingGoAhead               // a find: the reply was sent, the client's dummy is due
	handingOver                   // the descriptor is to be sent as soon as all of out is
	awaitingAcknowledgement       // the descriptor was sent, the client's second dummy is due
	ended                         // the client sends no more: close when all of out is sent
	succeeding                    // the client wants to be our successor: the server's turn, see predecessor.go
	onErrand                      // an admin request is answered, in portions
)

// The numbers of the states are handed over to other versions: they must stay.

func (s state) String() string {
	return [...]string{"ready", "awaiting descriptor", "awaiting go-ahead", "handing over",
		"awaiting acknowledgement", "ended", "succeeding", "on an errand"}[s]
}

// maxMessage bounds what a client can make us keep of one request. The longest
// request has three values; the protocol's users must get back byte-exact what
// they save up to about a mebibyte each.
const maxMessage = 4<<20 - 1<<16

var requestName = []byte("request\x00")

// input is what has arrived and was not taken yet.
type input struct {
	bytes []byte
	fd    int // came with the first of the bytes, which is alone then; -1: none
}

// step takes one message off in, or the byte that is to carry a descriptor, and
// acts on it; false means that it has to wait, for more input or for the
// descriptor to be handed over. A descriptor that it takes is its own.
func (s *session) step(in *input) bool {
	switch s.state {
	case handingOver, ended, succeeding:
		return false
	case onErrand:
		s.portion()
		return true
	case awaitingDescriptor:
		if len(in.bytes) == 0 {
			return false
		}
		s.finishSave(in.takeByte())
		return true
	}
	var request proto.Request
	if !s.request(&request, in) {
		return false
	}
	if s.state == awaitingGoAhead {
		if request.Op == proto.Dummy {
			s.state = handingOver
			return true
		}
		s.putBack()
	}
	s.taken(true)
	s.state = ready
	s.answer(&request)
	if s.cache.verbose {
		s.trace(&request)
	}
	return true
}

// takeByte takes one byte, and the descriptor if one came with it.
func (in *input) takeByte() (fd int) {
	fd, in.fd = in.fd, -1
	in.bytes = in.bytes[1:]
	return fd
}

// request takes one message off in, and decodes it into r, which gets views into it. It
// returns false if there is no whole one.
func (s *session) request(r *proto.Request, in *input) bool {
	if s.framer.Idle() && !s.tooLong {
		if n := r.DecodeNext(in.bytes); n > 0 {
			in.bytes = in.bytes[n:]
			return true
		}
	}
	n, done := s.framer.Next(in.bytes[s.scanned:])
	n += s.scanned
	if !done && n <= maxMessage {
		s.scanned = n
		return false
	}
	msg := in.bytes[:n]
	in.bytes = in.bytes[n:]
	s.scanned = 0
	if !s.tooLong {
		*r = proto.DecodeRequest(msg)
	} else {
		*r = proto.Request{Op: s.op, Malformed: true}
	}
	if !done && !s.tooLong && r.Op == proto.None && bytes.HasPrefix(msg, requestName) {
		r.Op = proto.Unknown // what is too long is the name of the request itself
	}
	s.tooLong, s.op = !done, r.Op
	return done
}

// answer serves a request that came in state ready.
func (s *session) answer(r *proto.Request) {
	if r.Op == proto.None || r.Op == proto.Dummy {
		return
	}
	if r.Op == proto.TakeOver && !s.cache.handsOver {
		r.Op = proto.Unknown // as to Postfix's scache(8)
	}
	s.cache.counters.requests++
	if r.Malformed || r.Op == proto.Unknown {
		s.fault("%v: bad or missing request parameter", r.Op)
		s.out = proto.AppendFailure(s.out, r.Op, proto.Bad)
		return
	}
	ttl := s.govern(r)
	s.warnIfLowered(ttl)
	switch r.Op {
	case proto.SaveEndpoint:
		s.connection = s.cache.store.Prepare(r.Endpoint, r.EndpointProperty)
		if s.connection == nil {
			s.refuse(r)
			return
		}
		s.ttl, s.texts = int32(ttl), int32(len(r.Endpoint)+len(r.EndpointProperty))
		s.out = append(s.out, proto.DummyMessage...)
		s.state = awaitingDescriptor
	case proto.FindEndpoint:
		s.findEndpoint(r)
	case proto.SaveDestination:
		if !s.cache.saveDestination(r, ttl, s.terms) {
			s.refuse(r)
			return
		}
		s.out = proto.AppendStatus(s.out, proto.OK)
	case proto.FindDestination:
		s.findDestination(r)
	case proto.TakeOver:
		s.state = succeeding
	case proto.Admin:
		s.admin(r)
	}
}

// warnIfLowered says, once between two reports, that cache.deadline will lower a time to live.
func (s *session) warnIfLowered(ttl int) {
	if ttl <= s.cache.ttlLimit {
		return
	}
	if s.cache.stats.lowered == 0 {
		s.cache.log.Warningf("%v: connection_cache_ttl_limit lowers the time to live: asked %ds, granted %ds", clientName{s}, ttl, s.cache.ttlLimit)
	}
	s.cache.stats.lowered++
}

// refuse answers a save for whose texts there is no room.
func (s *session) refuse(r *proto.Request) {
	s.cache.stats.refused++
	s.fault("%v: no room for its texts within connection_cache_text_limit", r.Op)
	s.out = proto.AppendFailure(s.out, r.Op, proto.Failed)
}

func (s *session) findEndpoint(r *proto.Request) {
	c := s.cache.findEndpoint(r.Endpoint)
	s.cache.stats.endpoints.count(c != nil)
	if c == nil {
		s.out = proto.AppendFailure(s.out, r.Op, proto.Failed)
		return
	}
	s.out = proto.AppendEndpointReply(s.out, proto.OK, c.Property())
	s.connection, s.state = c, awaitingGoAhead
}

func (s *session) findDestination(r *proto.Request) {
	c, property := s.cache.findDestination(r.Destination)
	s.cache.stats.destinations.count(c != nil)
	s.cache.activity.count(r.Destination, s.cache.now, c != nil)
	if c == nil {
		s.out = proto.AppendFailure(s.out, r.Op, proto.Failed)
		return
	}
	s.out = proto.AppendDestinationReply(s.out, proto.OK, property, c.Property())
	s.connection, s.state = c, awaitingGoAhead
}

// finishSave ends a save_endp with what came on the byte that was due; -1 is for
// a byte without a descriptor.
func (s *session) finishSave(fd int) {
	c := s.connection
	s.connection, s.state = nil, ready
	if fd < 0 {
		s.cache.store.Release(c)
		s.fault("%v: no file descriptor received", proto.SaveEndpoint)
		s.out = proto.AppendStatus(s.out, proto.Failed)
		return
	}
	s.cache.save(c, fd, int(s.ttl), s.terms)
	s.out = proto.AppendStatus(s.out, proto.OK)
}

// handedOver is called in state handingOver when the client has been sent the
// descriptor.
func (s *session) handedOver() { s.state = awaitingAcknowledgement }

// taken ends a connection that was handed over: from now on it is the client's alone, which
// may be gone by now.
func (s *session) taken(alive bool) {
	if s.state == awaitingAcknowledgement {
		s.cache.taken(s.connection, alive)
		s.connection = nil
	}
}

// lost is called when the client is gone and has not read all that it was sent. The
// descriptor is the last of that, so it has not been taken.
func (s *session) lost() {
	if s.state == awaitingAcknowledgement {
		s.putBack()
		s.state = ready
	}
}

// prepared returns the bytes that the cache holds for a save_endp which is not done.
func (s *session) prepared() int {
	if s.state == awaitingDescriptor {
		return int(s.texts)
	}
	return 0
}

// waiting reports whether the client owes us something: an idle client does not.
func (s *session) waiting() bool {
	return s.state != ready || !s.framer.Idle() || len(s.out) > 0
}

// end is called when the client sends no more. What it began and did not finish
// is answered as malformed, as attr_scan0(3) treats an end of file.
func (s *session) end(in *input) {
	switch {
	case s.state == awaitingDescriptor:
		s.finishSave(-1)
	case s.state == ready && !s.framer.Idle():
		op := s.op
		if !s.tooLong {
			op = proto.DecodeRequest(in.bytes).Op
		}
		s.answer(&proto.Request{Op: op, Malformed: true})
	}
	s.abandon()
	in.bytes = nil
}

// abandon gives up what the session owns.
func (s *session) abandon() {
	switch s.state {
	case awaitingDescriptor:
		s.cache.store.Release(s.connection)
		s.connection = nil
	case awaitingGoAhead, handingOver:
		s.putBack()
	}
	s.taken(false)
	s.errand, s.state = nil, ended
}

// putBack returns a connection that was found and not handed over.
func (s *session) putBack() {
	s.cache.putBack(s.connection)
	s.connection = nil
}
