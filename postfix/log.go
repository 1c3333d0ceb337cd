package postfix

import (
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// fatalPause is how long a Postfix program waits before it ends for an error, so
// that one that is started again at once does not fill the log (util/msg.c,
// vmsg_fatal).
const fatalPause = time.Second

// panicStatus is the exit status of a Go program that panics.
const panicStatus = 2

// Log writes lines as Postfix does, to the mail log or to standard error. It
// waits for a full log socket, but 20 ms a second at most (fullPatience): a line that is
// not taken by then is dropped and counted, and the count is logged when the log takes
// lines again. It may be used by several
// goroutines; a line costs a few system calls and hardly any memory.
type Log struct {
	exiting atomic.Bool

	mu    sync.Mutex
	utf8  bool // UTF-8 is printable
	text  []byte
	sinks []*sink
	now   func() time.Time
}

// StderrFormat is what lines on standard error look like.
type StderrFormat int

const (
	DatedText   StderrFormat = iota // with date and process in front
	JournalText                     // with a priority in front, for journald(8)
	JSON                            // an object with time, level, process and message
)

// NewStderrLog returns a log whose lines go to standard error.
func NewStderrLog(look StderrFormat) *Log {
	loadTimeZone()
	who := ident{tag: path.Base(os.Args[0]), pid: os.Getpid()}
	formats := map[StderrFormat]format{DatedText: datedFormat(who), JournalText: journalFormat, JSON: jsonFormat(who.pid)}
	l := newLog(&sink{format: formats[look], out: stream{fd: 2}})
	l.utf8 = true
	return l
}

func newLog(s *sink) *Log { return &Log{sinks: []*sink{s}, now: time.Now} }

// Infof logs a line without prefix.
func (l *Log) Infof(format string, args ...any) { l.emit(sevInfo, format, args...) }

// Warningf logs a line that begins with "warning: ".
func (l *Log) Warningf(format string, args ...any) { l.emit(sevWarning, format, args...) }

// Errorf logs a line that begins with "error: ".
func (l *Log) Errorf(format string, args ...any) { l.emit(sevError, format, args...) }

// Fatalf logs a line that begins with "fatal: ", pauses for a second, and ends the
// process with status 1.
func (l *Log) Fatalf(format string, args ...any) { l.die(1, sevFatal, format, args...) }

// Recover is to be deferred by a goroutine: a panic is our fault, and it should be
// in the log, since a daemon's standard error is /dev/null. It logs a line that begins with
// "panic: " and the place, pauses for a second, and ends the process with status 2, as a Go
// program does that panics.
func (l *Log) Recover() {
	if p := recover(); p != nil {
		l.die(panicStatus, sevPanic, "%s%v", panicPlace(), p)
	}
}

// panicPlace names the frame that panicked, as "file.go:123: ".
func panicPlace() string {
	pc := make([]uintptr, 32)
	frames := runtime.CallersFrames(pc[:runtime.Callers(2, pc)])
	panicked := false
	for {
		f, more := frames.Next()
		inRuntime := len(f.Function) > 8 && f.Function[:8] == "runtime."
		if panicked && !inRuntime {
			return path.Base(path.Dir(f.File)) + "/" + path.Base(f.File) + ":" + strconv.Itoa(f.Line) + ": "
		}
		panicked = panicked || inRuntime
		if !more {
			return ""
		}
	}
}

// Dropped is the number of lines that could not be written so far.
func (l *Log) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n uint64
	for _, s := range l.sinks {
		n += s.dropped
	}
	return n
}

// emit formats a line and gives it to each sink; it returns those that refused it.
func (l *Log) emit(sev severity, format string, args ...any) (refused []*sink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.give(l.sinks, sev, format, args...)
}

func (l *Log) give(sinks []*sink, sev severity, format string, args ...any) (refused []*sink) {
	l.text = fmt.Appendf(l.text[:0], format, args...)
	r := record{when: l.now(), sev: sev, text: bound(mask(l.text, l.utf8))}
	for _, s := range sinks {
		if !s.write(r) {
			refused = append(refused, s)
		}
	}
	return refused
}

// die logs the reason and ends the process. Only the first reason is logged. Where
// the log did not take it, the pause gives it a second chance.
func (l *Log) die(status int, sev severity, format string, args ...any) {
	var refused []*sink
	if l.exiting.CompareAndSwap(false, true) {
		refused = l.emit(sev, format, args...)
	}
	time.Sleep(fatalPause)
	l.mu.Lock() // and not unlocked: no other line comes after the reason
	l.give(refused, sev, format, args...)
	os.Exit(status)
}

// setMain replaces the first sink, which takes over the count of dropped lines.
func (l *Log) setMain(s *sink, utf8Passes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.sinks[0]
	s.dropped, s.told = old.dropped, old.told
	old.out.close()
	l.sinks[0] = s
	l.utf8 = utf8Passes
}

// addStderr copies every line to standard error, as -V asks for; if that is done
// already, only the tag changes.
func (l *Log) addStderr(tag string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sinks = append(l.sinks[:1], &sink{format: bareFormat(tag), out: stream{fd: 2}})
}

// enterRoot tells the sinks that root is now the root directory.
func (l *Log) enterRoot(root string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sinks {
		if d, ok := s.out.(*logDaemon); ok {
			d.enterRoot(root)
		}
	}
}

func lostLines(n uint64) []byte { return fmt.Appendf(nil, "%d log lines were lost", n) }
