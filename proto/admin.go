package proto

import "strconv"

// AdminOp is what an admin request asks for. These requests are ours: Postfix's scache(8) answers
// them as it does any name that it does not know, with status 1. All their names begin with admin_.
//
// The reply is a status and, if that is OK, attributes; to the long ones it is the
// status alone, one message for each entry, and an empty message at the end. Numbers are decimal,
// times are in milliseconds, sizes in bytes.
type AdminOp int

const (
	AdminUnknown      AdminOp = iota
	AdminStatistics           // what has been counted: version, cache, and the table Statistics
	AdminDestinations         // long: how often destinations were found of late
	AdminList                 // long: what is cached
	AdminFlush                // drop some of what is cached: connections, bindings (how many)
	AdminPause                // find and save nothing: paused
	AdminResume               // paused
	AdminLimits               // the limits in force, each as name and value
	AdminSetLimit             // the same, one of them changed
)

// adminNames are the names on the wire.
var adminNames = [...]string{
	AdminUnknown:      "unknown admin request",
	AdminStatistics:   "admin_statistics",
	AdminDestinations: "admin_destinations",
	AdminList:         "admin_list",
	AdminFlush:        "admin_flush",
	AdminPause:        "admin_pause",
	AdminResume:       "admin_resume",
	AdminLimits:       "admin_limits",
	AdminSetLimit:     "admin_set_limit",
}

func (op AdminOp) String() string { return adminNames[op] }

const adminPrefix = "admin_"

// AdminRequest is a decoded admin request. The slices are views into the message.
type AdminRequest struct {
	Op AdminOp
	// Subject is what to list (connections, bindings) or to flush (all, endpoint,
	// destination, pattern), or the name of a limit.
	Subject []byte
	// Value is the label or pattern to flush, empty for all, or the new limit.
	Value []byte
}

// adminArguments are the attributes that a request must have, in order, as Subject and
// Value.
var adminArguments = [...][]string{
	AdminList:     {"kind"},
	AdminFlush:    {"what", "value"},
	AdminSetLimit: {"name", "value"},
}

// DecodeAdmin decodes what a Request has in Admin; ok is false if the request is unknown,
// or attributes are missing or misplaced.
func DecodeAdmin(admin []byte) (r AdminRequest, ok bool) {
	_, name, rest, ok := Attribute(admin)
	for op := AdminStatistics; ok && int(op) < len(adminNames); op++ {
		if string(name) == adminNames[op] {
			r.Op = op
		}
	}
	if r.Op == AdminUnknown {
		return r, false
	}
	if int(r.Op) >= len(adminArguments) {
		return r, true
	}
	d := decoder{rest: rest}
	into := [...]*[]byte{&r.Subject, &r.Value}
	for i, argument := range adminArguments[r.Op] {
		*into[i] = d.value(argument)
	}
	return r, !d.failed
}

// AppendAdmin appends an admin request with as many arguments as it has.
func AppendAdmin(dst []byte, op AdminOp, arguments ...string) []byte {
	dst = appendAttribute(dst, "request", adminNames[op])
	for i, argument := range arguments {
		dst = appendAttribute(dst, adminArguments[op][i], argument)
	}
	return append(dst, 0)
}

// AppendOK begins a reply, to which attributes are appended and then the end.
func AppendOK(dst []byte) []byte { return appendStatus(dst, OK) }

// AppendText appends an attribute to a message that is begun. The value must not hold a NUL
// byte.
func AppendText(dst []byte, name, value string) []byte { return appendAttribute(dst, name, value) }

// AppendNumber appends an attribute whose value is a number.
func AppendNumber(dst []byte, name string, value int64) []byte {
	dst = append(append(dst, name...), 0)
	return append(strconv.AppendInt(dst, value, 10), 0)
}

// AppendEnd ends a message; without one that is begun it is the empty message.
func AppendEnd(dst []byte) []byte { return append(dst, 0) }
