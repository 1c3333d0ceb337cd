package proto

// Status is the outcome of a request (global/scache.h).
type Status byte

const (
	OK     Status = 0 // done
	Bad    Status = 1 // the request was malformed
	Failed Status = 2 // nothing found, no room, or no descriptor received
	Denied Status = 3 // an admin request by somebody who may make none; not Postfix's
)

const (
	// Announcement is what the server says when it accepts a client.
	Announcement = "protocol\x00connection_cache_protocol\x00\x00"
	// DummyMessage is what either side says to make the other one send or
	// receive a descriptor in step; its value means nothing.
	DummyMessage = "dummy\x00\x00\x00"
)

// AppendStatus appends the reply to save_endp, save_dest and unknown requests.
func AppendStatus(dst []byte, status Status) []byte {
	return append(appendStatus(dst, status), 0)
}

// AppendEndpointReply appends the reply to find_endp.
func AppendEndpointReply(dst []byte, status Status, property []byte) []byte {
	dst = appendStatus(dst, status)
	dst = appendAttribute(dst, "property", property)
	return append(dst, 0)
}

// AppendDestinationReply appends the reply to find_dest.
func AppendDestinationReply(dst []byte, status Status, destinationProperty, endpointProperty []byte) []byte {
	dst = appendStatus(dst, status)
	dst = appendAttribute(dst, "property", destinationProperty)
	dst = appendAttribute(dst, "property", endpointProperty)
	return append(dst, 0)
}

// AppendFailure appends the reply to a request that did not succeed, in the shape
// that op's reply has.
func AppendFailure(dst []byte, op Op, status Status) []byte {
	switch op {
	case FindEndpoint:
		return AppendEndpointReply(dst, status, nil)
	case FindDestination:
		return AppendDestinationReply(dst, status, nil, nil)
	default:
		return AppendStatus(dst, status)
	}
}

// AppendRefusal appends a reply that gives a reason: Denied if the client may make no admin requests;
// Failed if it may not take over, if that is not possible now, or if an argument makes no sense.
func AppendRefusal(dst []byte, status Status, reason string) []byte {
	dst = appendStatus(dst, status)
	dst = appendAttribute(dst, "reason", reason)
	return append(dst, 0)
}

// DecodeRefusal returns the reason in what AppendRefusal has made.
func DecodeRefusal(msg []byte) (reason string, ok bool) {
	_, _, rest, ok := Attribute(msg)
	if !ok {
		return "", false
	}
	name, value, _, ok := Attribute(rest)
	return string(value), ok && string(name) == "reason"
}

func appendStatus(dst []byte, status Status) []byte {
	dst = append(dst, "status\x00"...)
	return append(dst, '0'+byte(status), 0)
}

// DecodeStatus takes the status off a reply; rest is what Attribute takes next. ok is
// false if it is no reply.
func DecodeStatus(msg []byte) (status Status, rest []byte, ok bool) {
	name, value, rest, ok := Attribute(msg)
	if !ok || string(name) != "status" || len(value) != 1 || value[0] < '0' || value[0] > '9' {
		return 0, nil, false
	}
	return Status(value[0] - '0'), rest, true
}

// Reply is a decoded reply, as a client sees it. The properties are views into
// the message, nil where the reply has none.
type Reply struct {
	Status     Status
	Properties [2][]byte // of the endpoint; or of the destination and of the endpoint
}

// DecodeReply decodes one whole message; ok is false if it is no reply.
func DecodeReply(msg []byte) (r Reply, ok bool) {
	status, rest, ok := DecodeStatus(msg)
	if !ok {
		return r, false
	}
	r.Status = status
	for i := range r.Properties {
		name, value, next, any := Attribute(rest)
		if !any {
			break
		}
		rest = next
		if string(name) != "property" {
			return r, false
		}
		r.Properties[i] = value
	}
	return r, true
}
