package proto

import "strconv"

// Op is what a message asks for.
type Op int

const (
	None    Op = iota // no request: an empty message, or one that begins with any other attribute
	Dummy             // a message that only keeps client and server in step around a descriptor
	Unknown           // a request whose name the protocol does not know
	SaveEndpoint
	FindEndpoint
	SaveDestination
	FindDestination
	TakeOver // not Postfix's: the client is to be the server's successor
	Admin    // of the operator, see AdminRequest
)

// opNames are the names, on the wire and in the log.
var opNames = [...]string{
	None:            "none",
	Dummy:           "dummy",
	Unknown:         "unknown request",
	SaveEndpoint:    "save_endp",
	FindEndpoint:    "find_endp",
	SaveDestination: "save_dest",
	FindDestination: "find_dest",
	TakeOver:        "takeover",
	Admin:           "admin request",
}

func (op Op) String() string { return opNames[op] }

// Request is a decoded message. Which fields are set depends on Op, as in the
// manual page scache(8). The slices are views into the message.
type Request struct {
	Op                  Op
	Malformed           bool   // attributes are missing, misplaced or have a bad value
	TTL                 int    // seconds, 1 to 2147483647
	Destination         []byte // label of a logical destination
	DestinationProperty []byte
	Endpoint            []byte // label of a physical endpoint
	EndpointProperty    []byte
	Admin               []byte // an admin request, for DecodeAdmin
}

// DecodeRequest decodes one whole message. A beginning of one gives the right Op,
// if it is long enough to hold it, and Malformed.
//
// Attributes are taken in the order of the manual page; anything else before the
// last wanted one makes the request malformed, anything behind it is ignored: this
// is how attr_scan0(3) treats a stream of which the wanted ones have been read.
func DecodeRequest(msg []byte) (r Request) {
	r.decode(msg)
	return r
}

// DecodeNext decodes the request that b begins with, of length n, into r, which is empty,
// if it ends where the last wanted attribute that it has does: so it spares nearly all
// requests the Framer's look at each byte. Else n is 0, r is of no meaning, and it takes
// a Framer to find the end.
func (r *Request) DecodeNext(b []byte) (n int) {
	rest := r.decode(b)
	switch r.Op {
	case None, Unknown, Admin:
		return 0
	}
	if len(rest) == 0 || rest[0] != 0 {
		return 0
	}
	return len(b) - len(rest) + 1
}

// decode returns what follows the last wanted attribute.
func (r *Request) decode(msg []byte) (rest []byte) {
	name, value, rest, ok := Attribute(msg)
	if !ok {
		return nil
	}
	switch string(name) {
	case "dummy":
		r.Op = Dummy
		return rest
	case "request":
	default:
		return rest
	}
	d := decoder{rest: rest}
	switch string(value) {
	case "save_endp":
		r.Op = SaveEndpoint
		r.TTL = d.ttl()
		r.Endpoint = d.value("label")
		r.EndpointProperty = d.value("property")
	case "find_endp":
		r.Op = FindEndpoint
		r.Endpoint = d.value("label")
	case "save_dest":
		r.Op = SaveDestination
		r.TTL = d.ttl()
		r.Destination = d.value("label")
		r.DestinationProperty = d.value("property")
		r.Endpoint = d.value("label")
	case "find_dest":
		r.Op = FindDestination
		r.Destination = d.value("label")
	case "takeover":
		r.Op = TakeOver
	default:
		r.Op = Unknown
		if len(value) >= len(adminPrefix) && string(value[:len(adminPrefix)]) == adminPrefix {
			r.Op, r.Admin = Admin, msg
		}
	}
	r.Malformed = d.failed
	return d.rest
}

// decoder takes attributes off a message until one is not the wanted one.
type decoder struct {
	rest   []byte
	failed bool
}

// value takes the value of the attribute of that name, which has to be next.
func (d *decoder) value(name string) []byte {
	if d.failed || len(d.rest) <= len(name) || string(d.rest[:len(name)]) != name || d.rest[len(name)] != 0 {
		d.failed = true
		return nil
	}
	value, rest, ok := cut(d.rest[len(name)+1:])
	if !ok {
		d.failed = true
		return nil
	}
	d.rest = rest
	return value
}

// ttl takes a time to live: decimal digits only, from 1 to the largest signed
// 32-bit number. attr_scan0(3) reads an unsigned number with sscanf and scache(8)
// refuses what is not positive as a signed one; we differ in refusing signs,
// blanks and numbers that wrap around to something positive.
func (d *decoder) ttl() int {
	const largest = 1<<31 - 1
	ttl := 0
	text := d.value("ttl")
	for _, c := range text {
		if c < '0' || c > '9' || ttl > largest/10 {
			d.failed = true
			return 0
		}
		ttl = ttl*10 + int(c-'0')
	}
	if ttl < 1 || ttl > largest {
		d.failed = true
		return 0
	}
	return ttl
}

// AppendSaveEndpoint appends the request to save a connection under an endpoint,
// for ttl seconds. The server answers it with a dummy; then it wants the
// descriptor.
func AppendSaveEndpoint(dst []byte, ttl int, endpoint, property string) []byte {
	dst = appendRequest(dst, SaveEndpoint)
	dst = appendAttribute(dst, "ttl", strconv.Itoa(ttl))
	dst = appendAttribute(dst, "label", endpoint)
	dst = appendAttribute(dst, "property", property)
	return append(dst, 0)
}

// AppendFindEndpoint appends the request to look up an endpoint.
func AppendFindEndpoint(dst []byte, endpoint string) []byte {
	dst = appendRequest(dst, FindEndpoint)
	dst = appendAttribute(dst, "label", endpoint)
	return append(dst, 0)
}

// AppendSaveDestination appends the request to bind a destination to an endpoint,
// for ttl seconds.
func AppendSaveDestination(dst []byte, ttl int, destination, property, endpoint string) []byte {
	dst = appendRequest(dst, SaveDestination)
	dst = appendAttribute(dst, "ttl", strconv.Itoa(ttl))
	dst = appendAttribute(dst, "label", destination)
	dst = appendAttribute(dst, "property", property)
	dst = appendAttribute(dst, "label", endpoint)
	return append(dst, 0)
}

// AppendFindDestination appends the request to look up a destination.
func AppendFindDestination(dst []byte, destination string) []byte {
	dst = appendRequest(dst, FindDestination)
	dst = appendAttribute(dst, "label", destination)
	return append(dst, 0)
}

// AppendTakeOver appends the request to become the server's successor, see package handover.
func AppendTakeOver(dst []byte) []byte { return append(appendRequest(dst, TakeOver), 0) }

func appendRequest(dst []byte, op Op) []byte {
	return appendAttribute(dst, "request", opNames[op])
}
