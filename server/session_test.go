package server

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/store"
	"github.com/scache/scache/timerwheel"
)

// A script is a conversation between one client and the server, a line a step:
//
//	> "..."     the client sends bytes
//	> fd N      the client sends a byte with its descriptor number N
//	< "..."     the server sends exactly these bytes, and
//	< fd N      a byte with that descriptor, before the client goes on
//	advance D   time passes
//	end         the client sends no more
//	# ...       a comment
//
// \0 in a string is a NUL byte.
type step struct {
	line int
	verb string // ">", ">fd", "<", "<fd", "advance", "end"
	data []byte
	fd   int
	by   time.Duration
}

func parseScript(t *testing.T, text string) (steps []step) {
	t.Helper()
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		verb, rest, _ := strings.Cut(line, " ")
		s := step{line: i + 1, verb: verb}
		var err error
		number, isFD := strings.CutPrefix(rest, "fd ")
		switch {
		case verb == "end":
		case verb == "advance":
			s.by, err = time.ParseDuration(rest)
		case (verb == ">" || verb == "<") && isFD:
			s.verb += "fd"
			s.fd, err = strconv.Atoi(number)
		case verb == ">" || verb == "<":
			var data string
			data, err = strconv.Unquote(strings.ReplaceAll(rest, `\0`, `\x00`))
			s.data = []byte(data)
		default:
			err = fmt.Errorf("unknown verb %q", verb)
		}
		if err != nil {
			t.Fatalf("line %d: %s: %v", i+1, line, err)
		}
		steps = append(steps, s)
	}
	return steps
}

// player plays a script to a session, in the place of its conn.
type player struct {
	t       *testing.T
	session session
	in      input
	out     string      // what the server sent and the script did not want yet
	left    map[int]int // how often each descriptor has left the server
	sent    map[int]bool
	deaf    bool // whatever the server sends will do
}

func newPlayer(t *testing.T) *player {
	p := &player{t: t, left: map[int]int{}, sent: map[int]bool{}, in: input{fd: -1}}
	p.session.cache = pureCache(1000, func(fd int) { p.left[fd]++ })
	return p
}

// pureCache is a cache of sessions that are tested without system calls; gone is called
// with each descriptor that leaves it.
func pureCache(ttlLimit int, gone func(fd int)) *cache {
	c := &cache{
		clock:         &clock{},
		close:         gone,
		log:           discard{},
		ttlLimit:      ttlLimit,
		faults:        faults{log: discard{}},
		counters:      newCounters(),
		activity:      newActivity(),
		room:          new(1000),
		clientMemory:  new(1 << 20),
		administrator: func(int) string { return "" },
		describe:      func(int) (kind, remote string) { return "file", "" },
		process:       func() figures { return figures{} },
	}
	c.store = store.New(func(fd int, why store.Reason) {
		c.stats.closed[why]++
		gone(fd)
	})
	return c
}

type discard struct{}

func (discard) Infof(string, ...any)    {}
func (discard) Warningf(string, ...any) {}

func fdMark(fd int) string { return fmt.Sprintf("<fd %d>", fd) }

// deliver is one system call that receives, and all that follows from it.
func (p *player) deliver(piece []byte, fd int) {
	p.in.bytes = append(bytes.Clone(p.in.bytes), piece...)
	if p.session.state == awaitingDescriptor {
		p.in.fd = fd
	} else if fd >= 0 {
		p.left[fd]++ // the kernel closes it
	}
	for p.session.step(&p.in) {
		p.flush()
	}
}

func (p *player) flush() {
	p.out += string(p.session.out)
	p.session.out = nil
	if p.session.state == handingOver {
		fd := p.session.connection.FD()
		p.out += fdMark(fd)
		p.session.handedOver()
	}
}

func (p *player) want(s step, want string) {
	if p.deaf {
		return
	}
	rest, ok := strings.CutPrefix(p.out, want)
	if !ok {
		p.t.Fatalf("line %d: the server sent %q, want %q", s.line, p.out, want)
	}
	p.out = rest
}

// play runs the script, with the client's bytes delivered in pieces: cut tells
// whether to cut before the byte of that number, counted over the script.
func (p *player) play(steps []step, cut func(byteNumber int) bool) {
	sent := 0
	for _, s := range steps {
		if p.deaf {
			p.out = ""
		}
		if s.verb[0] != '<' && p.out != "" {
			p.t.Fatalf("line %d: the server also sent %q", s.line, p.out)
		}
		switch s.verb {
		case ">":
			start := 0
			for i := range s.data {
				if i > 0 && cut(sent+i) {
					p.deliver(s.data[start:i], -1)
					start = i
				}
			}
			p.deliver(s.data[start:], -1)
			sent += len(s.data)
		case ">fd":
			p.sent[s.fd] = true
			p.deliver([]byte{0}, s.fd)
		case "<":
			p.want(s, string(s.data))
		case "<fd":
			p.want(s, fdMark(s.fd))
		case "advance":
			p.session.cache.now += timerwheel.Tick(s.by / tick)
			p.session.cache.store.Advance(p.session.cache.now)
		case "end":
			p.session.end(&p.in)
			p.flush()
		}
	}
	if p.out != "" && !p.deaf {
		p.t.Fatalf("at the end: the server also sent %q", p.out)
	}
}

// finish is the departure of the client and the end of the server: every
// descriptor that was sent must have left exactly once.
func (p *player) finish() {
	p.session.abandon()
	p.session.cache.store.Clear()
	for fd := range p.sent {
		if p.left[fd] != 1 {
			p.t.Errorf("descriptor %d has left %d times", fd, p.left[fd])
		}
	}
}

// playAtEverySplit plays a script as a whole, byte by byte, and cut in two at every
// place.
func playAtEverySplit(t *testing.T, text string) { playAtEverySplitUnder(t, nil, text) }

// playAtEverySplitUnder does so with a judge.
func playAtEverySplitUnder(t *testing.T, j *judge, text string) {
	steps := parseScript(t, text)
	total := 0
	for _, s := range steps {
		total += len(s.data)
	}
	run := func(name string, cut func(int) bool) {
		if t.Failed() {
			return
		}
		t.Log(name) // shown with a failure
		p := newPlayer(t)
		p.session.cache.judge = j
		p.play(steps, cut)
		p.finish()
	}
	run("whole", func(int) bool { return false })
	run("byte by byte", func(int) bool { return true })
	for at := range total {
		run(fmt.Sprint("cut before byte ", at), func(n int) bool { return n == at })
	}
}

// Conversations that were recorded from Postfix's own scache.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts: ", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// The announcement is the connection's, not the session's.
			_, text, _ = bytes.Cut(text, []byte(`< "protocol\0connection_cache_protocol\0\0"`))
			playAtEverySplit(t, string(text))
		})
	}
}

func TestScripts(t *testing.T) {
	for _, script := range scripts {
		t.Run(script.name, func(t *testing.T) { playAtEverySplit(t, script.text) })
	}
}

// Where we do better than Postfix's own server, or are free to choose.
var scripts = []struct{ name, text string }{
	{"pipelined finds, with both dummies in the same write", `
		> "request\0save_endp\0ttl\09\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\02\0\0"
		< "dummy\0\0\0"
		> fd 2
		< "status\00\0\0"
		> "request\0find_endp\0label\0e\0\0dummy\0\0\0dummy\0\0\0request\0find_endp\0label\0e\0\0dummy\0\0\0dummy\0\0\0request\0find_endp\0label\0e\0\0"
		< "status\00\0property\01\0\0"
		< fd 1
		< "status\00\0property\02\0\0"
		< fd 2
		< "status\02\0property\0\0\0"`},
	{"found, not taken, found again", `
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\0p\0\0"
		# an empty message instead of the dummy
		> "\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\0p\0\0"
		# another attribute
		> "other\0x\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\0p\0\0"
		# the next request
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\0p\0\0"
		> "dummy\0whatever\0more\0x\0\0"
		< fd 1`},
	{"put back in its place, not the last", `
		> "request\0save_endp\0ttl\09\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0save_endp\0ttl\09\0label\0e\0property\02\0\0"
		< "dummy\0\0\0"
		> fd 2
		< "status\00\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\01\0\0"
		> "\0request\0find_endp\0label\0e\0\0"
		< "status\00\0property\01\0\0"`},
	{"found in time, taken late", `
		> "request\0save_endp\0ttl\01\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\01\0\0"
		advance 2s
		> "dummy\0\0\0"
		< fd 1`},
	{"found in time, given back late", `
		> "request\0save_endp\0ttl\01\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\01\0\0"
		advance 2s
		> "\0request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"`},
	{"never early, gone a tick later at most", `
		> "request\0save_endp\0ttl\02\0label\0e\0property\01\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		advance 2s
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\01\0\0"
		> "\0"
		advance 1ms
		> "request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"`},
	{"the byte without a descriptor is one byte", `
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> "xrequest\0find_endp\0label\0e\0\0"
		< "status\02\0\0"
		< "status\02\0property\0\0\0"`},
	{"descriptors where none belongs", `
		> fd 1
		> "request\0find_endp\0label\0e\0\0"
		< "status\02\0property\0\0\0"
		> "request\0find_endp\0label\0e"
		> fd 2
		> "\0"
		< "status\02\0property\0\0\0"`},
	{"the client ends in the middle of a request", `
		> "request\0find_dest\0lab"
		end
		< "status\01\0property\0\0property\0\0\0"`},
	{"the client ends in the middle of an unknown request", `
		> "request\0find_nothing\0lab"
		end
		< "status\01\0\0"`},
	{"the client ends before the request has a name", `
		> "request\0find_de"
		end`},
	{"the client ends instead of sending a descriptor", `
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		end
		< "status\02\0\0"`},
	{"the client ends between find and dummy", `
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\0p\0\0"
		end`},
	{"the client ends in the middle of what is no dummy", `
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\0p\0\0"
		> "request\0find_endp\0lab"
		end`},
}

// A client that vanishes after any byte of a conversation leaves no descriptor
// behind, and what it found and did not get can be found by others.
func TestVanishingAfterEveryByte(t *testing.T) {
	steps := parseScript(t, `
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0save_dest\0ttl\09\0label\0d\0property\0\0label\0e\0\0"
		< "status\00\0\0"
		> "request\0find_dest\0label\0d\0\0"
		< "status\00\0property\0\0property\0p\0\0"
		> "dummy\0\0\0"
		< fd 1
		> "dummy\0\0\0request\0find_dest\0label\0d\0\0"
		< "status\02\0property\0\0property\0\0\0"`)
	for upTo := range steps {
		for keep := range max(1, len(steps[upTo].data)) {
			p := newPlayer(t)
			some := append([]step{}, steps[:upTo]...)
			if last := steps[upTo]; last.verb == ">" {
				last.data = last.data[:keep]
				some = append(some, last)
			}
			p.deaf = true
			p.play(some, func(int) bool { return false })
			p.session.abandon()
			saved, taken := p.sent[1], p.left[1] == 1
			if there := p.session.cache.store.FindEndpoint([]byte("e")); (there != nil) != (saved && !taken) {
				t.Fatalf("vanished in line %d: saved %v, taken %v, but found is %v", steps[upTo].line, saved, taken, there)
			} else if there != nil {
				p.session.cache.store.PutBack(there)
			}
			p.finish()
		}
	}
}

// The client has gone without reading the descriptor, so nobody has it.
func TestVanishingBeforeTheDescriptorIsRead(t *testing.T) {
	p := newPlayer(t)
	p.play(parseScript(t, `
		> "request\0save_endp\0ttl\09\0label\0e\0property\0p\0\0"
		< "dummy\0\0\0"
		> fd 1
		< "status\00\0\0"
		> "request\0find_endp\0label\0e\0\0"
		< "status\00\0property\0p\0\0"
		> "dummy\0\0\0"
		< fd 1`), func(int) bool { return false })
	p.session.lost()
	if p.session.abandon(); p.left[1] != 0 {
		t.Fatal("the descriptor has left")
	}
	found := p.session.cache.store.FindEndpoint([]byte("e"))
	if found == nil || found.FD() != 1 {
		t.Fatalf("found %v, want the connection", found)
	}
	p.session.cache.store.PutBack(found)
	p.finish()
}

// Messages above the limit are answered in the shape of their reply, and what
// follows is in step.
func TestTooLongMessage(t *testing.T) {
	p := newPlayer(t)
	piece := bytes.Repeat([]byte{'x'}, readSize)
	p.deliver([]byte("request\x00find_dest\x00label\x00"), -1)
	for range maxMessage/readSize + 2 {
		p.deliver(piece, -1)
	}
	if len(p.in.bytes) > 3*readSize {
		t.Errorf("%d bytes are kept of a message that is too long", len(p.in.bytes))
	}
	p.deliver([]byte("\x00\x00request\x00find_endp\x00label\x00x\x00\x00"), -1)
	p.want(step{}, "status\x001\x00property\x00\x00property\x00\x00\x00status\x002\x00property\x00\x00\x00")
	p.finish()
}

func TestNothingIsAllocatedInTheSteadyState(t *testing.T) { steadyState(t, newPlayer(t)) }

func steadyState(t *testing.T, p *player) {
	p.session.out = make([]byte, 0, 4096)
	talk := func(msg string, fd int) {
		// A view, as conn gives it; deliver makes copies.
		p.in.bytes, p.in.fd = append(p.in.bytes[:0], msg...), fd
		for p.session.step(&p.in) {
			p.session.out = p.session.out[:0]
			if p.session.state == handingOver {
				p.session.handedOver()
			}
		}
	}
	p.in.bytes = make([]byte, 0, 4096)
	buffer := p.in.bytes
	if n := testing.AllocsPerRun(1000, func() {
		for _, s := range []struct {
			msg string
			fd  int
		}{
			{"request\x00save_dest\x00ttl\x005\x00label\x00d\x00property\x00p\x00label\x00e\x00\x00", -1},
			{"request\x00save_endp\x00ttl\x005\x00label\x00e\x00property\x00p\x00\x00", -1},
			{"\x00", 7},
			{"request\x00find_dest\x00label\x00d\x00\x00", -1},
			{"dummy\x00\x00\x00", -1},
			{"dummy\x00\x00\x00request\x00find_endp\x00label\x00e\x00\x00", -1},
		} {
			p.in.bytes = buffer
			talk(s.msg, s.fd)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
