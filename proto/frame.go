// Package proto is what the bytes of the connection cache protocol mean: pure
// functions between bytes and requests, for both sides of a connection.
//
// A message is a list of attributes, each a name and a value that end in one NUL
// byte, and an empty name behind the last. A descriptor is not part of any
// message: it travels on one byte of its own, see package server. The encoding is
// Postfix's attr_print0(3) and attr_scan0(3), the requests are those of scache(8)
// and its client in global/scache_clnt.c.
//
// Decoding returns views into what it was given; encoding appends to what it was
// given. Nothing is allocated.
package proto

import "bytes"

// Framer finds the end of a message in a stream of bytes that arrives in pieces.
// The zero Framer stands at the beginning of a message.
type Framer struct {
	begun    bool // a byte of the message has been seen
	inValue  bool // else in a name
	inString bool // a byte of it has been seen
}

// Next looks at bytes that follow those it was given before. If the message ends
// in b, done is true, n is the length of the part of b that belongs to it, and
// the Framer stands at the beginning of the next one. Else n is len(b).
func (f *Framer) Next(b []byte) (n int, done bool) {
	f.begun = f.begun || len(b) > 0
	for {
		length := bytes.IndexByte(b[n:], 0)
		if length < 0 {
			f.inString = f.inString || n < len(b)
			return len(b), false
		}
		n += length + 1
		if length == 0 && !f.inString && !f.inValue {
			f.begun = false
			return n, true
		}
		f.inString, f.inValue = false, !f.inValue
	}
}

// Idle reports whether the Framer stands at the beginning of a message.
func (f *Framer) Idle() bool { return !f.begun }

// State returns where the Framer stands, for FramerAt.
func (f *Framer) State() (state byte) {
	for i, flag := range [...]bool{f.begun, f.inValue, f.inString} {
		if flag {
			state |= 1 << i
		}
	}
	return state
}

// FramerAt returns a Framer that stands where another one stood.
func FramerAt(state byte) Framer {
	return Framer{begun: state&1 != 0, inValue: state&2 != 0, inString: state&4 != 0}
}

// Attribute splits the first attribute off msg; ok is false at the message's end
// and where it is cut short.
func Attribute(msg []byte) (name, value, rest []byte, ok bool) {
	name, rest, ok = cut(msg)
	if !ok || len(name) == 0 {
		return nil, nil, nil, false
	}
	value, rest, ok = cut(rest)
	return name, value, rest, ok
}

// cut takes the text before the first NUL byte off b.
func cut(b []byte) (text, rest []byte, ok bool) {
	length := bytes.IndexByte(b, 0)
	if length < 0 {
		return nil, nil, false
	}
	return b[:length], b[length+1:], true
}

// appendAttribute appends one attribute, without the end of the message.
func appendAttribute[T string | []byte](dst []byte, name string, value T) []byte {
	dst = append(dst, name...)
	dst = append(dst, 0)
	dst = append(dst, value...)
	return append(dst, 0)
}
