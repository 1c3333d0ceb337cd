package agent

import (
	"bytes"
	"strings"

	"github.com/scache/scache/proto"
)

// Labels are all of one length: a letter that tells what it names, a number, and
// the rest of what a label of smtp(8) looks like. So a request is made once, and
// only its numbers are written anew.
const (
	endpointKind    = 'e' // of a client, or shared by several
	cachedKind      = 'c' // what is cached beforehand
	destinationKind = 'd'
	unknownKind     = 'u' // never saved

	numberDigits = 8
	labelHead    = "smtp\n["
	labelTail    = "]\n25\n0\n"
	// MinLabel is the length of the shortest label.
	MinLabel = len(labelHead) + 1 + numberDigits + len(labelTail)
	// MaxText bounds labels and properties, so that a request always fits into
	// an empty socket buffer.
	MaxText = 1 << 14
)

// placeholder stands where the letter and the number go.
var placeholder = strings.Repeat("#", 1+numberDigits)

func label(size int) string {
	return labelHead + placeholder + strings.Repeat("x", size-MinLabel) + labelTail
}

// property is text as smtp(8) has it, or what fits.
func property(kind string, size int) string {
	text := kind + "\nmx.example.com\n192.0.2.1\n25\n"
	return (text + strings.Repeat("p", size))[:size]
}

// Properties are what the agents save, of a destination and of an endpoint.
func (c *Config) Properties() (destination, endpoint string) {
	return property("dest", c.PropertySize), property("endp", c.PropertySize)
}

// template is a request behind the dummy that may be owed from the find before it.
type template struct {
	bytes   []byte
	numbers [2]int // where the placeholders are
	ttl     []byte // the part that holds the time to live; nil if there is none
}

func newTemplate(request []byte) *template {
	t := &template{bytes: append([]byte(proto.DummyMessage), request...)}
	at := 0
	for i := range t.numbers {
		next := strings.Index(string(t.bytes[at:]), placeholder)
		if next < 0 {
			break
		}
		t.numbers[i] = at + next
		at = t.numbers[i] + len(placeholder)
	}
	const name = "\x00ttl\x00"
	if at := strings.Index(string(t.bytes), name); at > 0 {
		t.ttl, _, _ = bytes.Cut(t.bytes[at+len(name):], []byte{0})
	}
	return t
}

// set names what the i-th label names.
func (t *template) set(i int, kind byte, number int) {
	at := t.numbers[i]
	t.bytes[at] = kind
	write(t.bytes[at+1:][:numberDigits], number)
}

// write fills digits with a number.
func write(digits []byte, number int) {
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = '0' + byte(number%10)
		number /= 10
	}
}

// message returns the request, with the dummy in front if it is owed.
func (t *template) message(owed bool) []byte {
	if owed {
		return t.bytes
	}
	return t.bytes[len(proto.DummyMessage):]
}

// texts is all that the agents say and hear in the cache's protocol.
type texts struct {
	save, find, bind, findDestination *template

	dummy, done                   []byte
	endpointHit, endpointMiss     []byte
	destinationHit, destinationNo []byte
}

func newTexts(c *Config) texts {
	name := label(c.LabelSize)
	destination, endpoint := c.Properties()
	return texts{
		save:            newTemplate(proto.AppendSaveEndpoint(nil, c.TTL, name, endpoint)),
		find:            newTemplate(proto.AppendFindEndpoint(nil, name)),
		bind:            newTemplate(proto.AppendSaveDestination(nil, c.TTL, name, destination, name)),
		findDestination: newTemplate(proto.AppendFindDestination(nil, name)),
		dummy:           []byte(proto.DummyMessage),
		done:            proto.AppendStatus(nil, proto.OK),
		endpointHit:     proto.AppendEndpointReply(nil, proto.OK, []byte(endpoint)),
		endpointMiss:    proto.AppendFailure(nil, proto.FindEndpoint, proto.Failed),
		destinationHit:  proto.AppendDestinationReply(nil, proto.OK, []byte(destination), []byte(endpoint)),
		destinationNo:   proto.AppendFailure(nil, proto.FindDestination, proto.Failed),
	}
}
