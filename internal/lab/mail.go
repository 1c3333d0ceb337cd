package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Load is mail to send to one domain.
type Load struct {
	User     string // part of the recipients' names, to tell one load from another
	Domain   string
	Messages int
	Sessions int // in parallel; 0: 5
}

// Send hands mail to smtpd(8) with smtp-source(1), and returns when all is
// in the queue. Every message has a recipient of its own.
func (l *Lab) Send(ctx context.Context, load Load) error {
	_, err := l.Run(ctx, "smtp-source", "-N",
		"-m", strconv.Itoa(load.Messages),
		"-s", strconv.Itoa(min(load.Messages, cmp.Or(load.Sessions, 5))),
		"-M", "lab.test",
		"-f", "load@"+sender,
		"-t", load.User+"@"+load.Domain,
		"unix:"+l.path("queue/public/inject"))
	return err
}

// Delivered counts the deliveries that receivers have accepted so far.
func (l *Lab) Delivered() int { return strings.Count(l.Log(), " status=sent (250 ") }

// QueueEmpty reports whether there is no mail in the instance.
func (l *Lab) QueueEmpty() bool {
	for _, queue := range []string{"hold", "deferred", "incoming", "active"} {
		if !isEmpty(l.path("queue/" + queue)) {
			return false
		}
	}
	return true
}

func isEmpty(dir string) bool {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			return fs.ErrExist
		}
		return nil // what has just gone is not there
	})
	return !errors.Is(err, fs.ErrExist)
}

// WaitDelivered waits until n deliveries are in the log and the queue is empty.
func (l *Lab) WaitDelivered(ctx context.Context, n int) error {
	err := AwaitDelivery(ctx, func() (int, bool) {
		delivered := l.Delivered()
		return delivered, delivered >= n && l.QueueEmpty()
	}, l.Flush)
	if err != nil {
		return fmt.Errorf("%d of %d messages delivered: %w", l.Delivered(), n, err)
	}
	return nil
}

// stagnation is how long nothing is delivered before AwaitDelivery flushes:
// what was in delivery at a reload is set aside by qmgr(8) for a minute.
const stagnation = 2 * time.Second

// AwaitDelivery waits until all is delivered, and has the queue flushed when the
// number of those that are does not grow.
func AwaitDelivery(ctx context.Context, progress func() (delivered int, all bool), flush func(context.Context) error) error {
	var flushed error
	seen, since := 0, time.Now()
	err := Poll(ctx, func() bool {
		delivered, all := progress()
		if all {
			return true
		}
		if delivered > seen {
			seen, since = delivered, time.Now()
		}
		if time.Since(since) > stagnation {
			flushed = flush(ctx)
			since = time.Now()
		}
		return flushed != nil
	})
	return cmp.Or(err, flushed)
}

// Log is the whole mail log.
func (l *Lab) Log() string {
	text, _ := os.ReadFile(l.path("log")) // there is none before the first line
	return string(text)
}

// LogLines lists the lines that match.
func (l *Lab) LogLines(re *regexp.Regexp) []string {
	var lines []string
	for line := range strings.Lines(l.Log()) {
		if line = strings.TrimSuffix(line, "\n"); re.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// AboutTheClock matches what Postfix warns of when the machine's clock is stepped.
var AboutTheClock = regexp.MustCompile(`file system clock is|resetting file time stamps`)

// WaitLog waits for a line that matches.
func (l *Lab) WaitLog(ctx context.Context, re *regexp.Regexp) error {
	err := Poll(ctx, func() bool { return len(l.LogLines(re)) > 0 })
	if err != nil {
		return fmt.Errorf("no %q in the log: %w", re, err)
	}
	return nil
}

const pollInterval = 20 * time.Millisecond

// Poll waits until the condition holds, or the context ends.
func Poll(ctx context.Context, holds func() bool) error {
	for !holds() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollInterval):
		}
	}
	return nil
}
