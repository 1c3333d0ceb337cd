package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows what is being done: in place on a terminal, and else a line now
// and then.
type progress struct {
	out      io.Writer
	terminal bool
	began    time.Time
	last     time.Time // of a line
}

// sparse is how far apart lines are that do not go to a terminal.
const sparse = 10 * time.Second

func newProgress(out *os.File) *progress {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	return &progress{out: out, terminal: err == nil, began: time.Now(), last: time.Now()}
}

func (p *progress) say(format string, arguments ...any) {
	text := fmt.Sprintf("[%3.0fs] ", time.Since(p.began).Seconds()) + fmt.Sprintf(format, arguments...)
	switch {
	case p.terminal:
		fmt.Fprintf(p.out, "\r\x1b[K%.110s", text)
	case time.Since(p.last) >= sparse:
		p.last = time.Now()
		fmt.Fprintln(p.out, text)
	}
}

// clear makes room for something else.
func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// follow says what text returns, again and again until stop is called.
func (p *progress) follow(text func() string) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				p.say("%s", text())
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}
