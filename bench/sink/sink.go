// Package sink is an SMTP server that takes mail and forgets it, on evio. It holds
// tens of thousands of connections, whose client ends are what the cache stores,
// and counts them: when all is over, every connection that was opened must be
// closed, or a cache has lost one.
//
// It runs in a process of its own, which has its own limit of descriptors.
package sink

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tidwall/evio"
)

// What the sink says: a client can compare byte for byte.
const (
	Greeting = "220 sink ESMTP\r\n"
	Hello    = "250-sink\r\n250 PIPELINING\r\n"
	OK       = "250 2.0.0 Ok\r\n"
	Go       = "354 End data with <CR><LF>.<CR><LF>\r\n"
	Bye      = "221 2.0.0 Bye\r\n"
	Unknown  = "502 5.5.2 What?\r\n"
	TooLong  = "500 5.5.2 Line too long\r\n"
)

// Counts is what a sink has seen since it began.
type Counts struct {
	Opened, Closed, Messages int64
}

// counts is written by evio's loop and read by others.
type counts struct {
	opened, closed, messages atomic.Int64
}

func (c *counts) read() Counts {
	// The later event first: so that never more seem closed than opened.
	closed, messages := c.closed.Load(), c.messages.Load()
	return Counts{c.opened.Load(), closed, messages}
}

// longestLine is far beyond what a mail client sends.
const longestLine = 4096

// dialogue is the state of one connection.
type dialogue struct {
	line []byte // received so far of a line that is incomplete
	data bool   // between DATA and the dot
}

// serve runs a sink on loopback until it stops by itself, which it must not do.
// serving is told the address.
func serve(c *counts, serving func(address string)) error {
	err := evio.Serve(evio.Events{
		NumLoops: 1,
		Serving: func(s evio.Server) evio.Action {
			serving(s.Addrs[0].String())
			return evio.None
		},
		Opened: func(conn evio.Conn) ([]byte, evio.Options, evio.Action) {
			c.opened.Add(1)
			conn.SetContext(&dialogue{})
			return []byte(Greeting), evio.Options{ReuseInputBuffer: true}, evio.None
		},
		Closed: func(evio.Conn, error) evio.Action {
			c.closed.Add(1)
			return evio.None
		},
		Data: func(conn evio.Conn, in []byte) ([]byte, evio.Action) {
			out, messages, quit := conn.Context().(*dialogue).take(in)
			c.messages.Add(messages)
			if quit {
				return out, evio.Close
			}
			return out, evio.None
		},
	}, "tcp://127.0.0.1:0")
	if err == nil {
		// evio gives none, for instance when it cannot accept any more.
		err = errors.New("evio gave up, perhaps at the limit of descriptors")
	}
	return fmt.Errorf("sink: %w", err)
}

// take answers what has arrived.
func (d *dialogue) take(in []byte) (out []byte, messages int64, quit bool) {
	for len(in) > 0 && !quit {
		line, rest, whole := bytes.Cut(in, []byte("\n"))
		in = rest
		if len(d.line)+len(line) > longestLine {
			return append(out, TooLong...), messages, true
		}
		if !whole || len(d.line) > 0 {
			d.line = append(d.line, line...)
			line = d.line
		}
		if !whole {
			break
		}
		d.line = d.line[:0]
		line = bytes.TrimSuffix(line, []byte("\r"))
		switch {
		case !d.data:
			var reply string
			reply, quit = d.command(line)
			out = append(out, reply...)
		case string(line) == ".":
			d.data = false
			messages++
			out = append(out, OK...)
		}
	}
	return out, messages, quit
}

func (d *dialogue) command(line []byte) (reply string, quit bool) {
	verb, _, _ := bytes.Cut(line, []byte(" "))
	switch string(bytes.ToUpper(verb)) {
	case "EHLO":
		return Hello, false
	case "HELO", "MAIL", "RCPT", "RSET", "NOOP":
		return OK, false
	case "DATA":
		d.data = true
		return Go, false
	case "QUIT":
		return Bye, true
	}
	return Unknown, false
}
