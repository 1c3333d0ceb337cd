package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Log is what the end of the mail log tells.
type Log struct {
	Path       string // empty: no mail log was found, or it must not be read
	Deliveries int    // by smtp(8) and lmtp(8)
	Reused     int    // of them, over a connection that had been used before
	Lowered    string // the last warning about a time to live
	Disabled   int    // agents that have given up on the cache
	Throttled  int    // times that master(8) could not start the cache
	Fatal      string // the last word of a cache that did not start, or of master(8) about it
	Mended     bool   // a connection was reused since the last of these two
}

// syslogFiles is where syslog daemons keep mail's lines.
var syslogFiles = []string{"/var/log/mail.log", "/var/log/maillog", "/var/log/mail/mail.log"}

// tailSize is how much of the end of the log is read: some ten thousand lines.
const tailSize = 4 << 20

var (
	delivered = regexp.MustCompile(`/[sl]mtp\[\d+\]: .* status=sent `)
	reused    = regexp.MustCompile(` conn_use=\d+`)
	lowered   = regexp.MustCompile(`connection_cache_ttl_limit lowers the time to live: (asked \d+s, granted \d+s)`)
	disabled  = regexp.MustCompile(`warning: disabling connection caching`)
	throttled = regexp.MustCompile(`master\[\d+\]: warning: .*/scache[^ ]*: bad command startup`)
	fatal     = regexp.MustCompile(`(?:/scache[^ \[]*\[\d+\]: fatal: |/master\[\d+\]: fatal: .*/scache)`)
)

// byHand is what a cache says that somebody has started in a shell, perhaps to see why master(8) cannot.
const byHand = "do not run this command by hand"

// readLog reads the end of Postfix's own log file, if it has one, else of syslog's. names are the
// instance's.
func readLog(maillog string, names []string) Log {
	candidates := syslogFiles
	if maillog != "" {
		candidates = []string{maillog}
	}
	for _, path := range candidates {
		if text, err := tail(path); err == nil {
			return parseLog(path, text, names)
		}
	}
	return Log{}
}

// tail returns the end of a file. Of what is none, as /dev/stdout in a container, there may be no end.
func tail(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || strings.HasPrefix(path, "/dev/") {
		return nil, errors.New("not a log file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info.Size() > tailSize {
		file.Seek(-tailSize, io.SeekEnd)
	}
	return io.ReadAll(io.LimitReader(file, tailSize))
}

func parseLog(path string, text []byte, names []string) Log {
	l := Log{Path: path}
	early := false // Fatal is from before a connection was reused
	for line := range bytes.Lines(text) {
		if ofAnother(line, names) {
			continue
		}
		switch m := lowered.FindSubmatch(line); {
		case m != nil:
			l.Lowered = string(m[1])
		case fatal.Match(line):
			_, after, _ := bytes.Cut(line, []byte(": fatal: "))
			if reason := strings.TrimSpace(string(after)); reason != byHand {
				l.Fatal, early = reason, false
			}
		case disabled.Match(line):
			l.Disabled++
			l.Mended = false
		case throttled.Match(line):
			if early { // it has been started since, so that is not the reason
				l.Fatal = ""
			}
			l.Throttled++
			l.Mended = false
		case delivered.Match(line):
			l.Deliveries++
			if reused.Match(line) {
				l.Reused++
				l.Mended, early = true, true
			}
		}
	}
	return l
}

// ofAnother tells a line of another instance, such as that of postfix-out/smtp[8] where the name is
// postfix. One without a slash is of no instance: "scache serve" has none.
func ofAnother(line []byte, names []string) bool {
	head, _, _ := bytes.Cut(line, []byte("["))
	slash := bytes.LastIndexByte(head, '/')
	if slash < bytes.LastIndexByte(head, ' ') || slash < 0 {
		return false
	}
	before := " " + string(head[:slash]) // a name may have spaces
	return !slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(before, " "+name) })
}

func loggedTrouble(s *System, yield func(Finding)) {
	l := s.Log
	gaveUp, throttled, since := Warning, Error, ""
	fix := []string{reload(s)}
	if l.Mended {
		gaveUp, throttled, since, fix = Note, Note, "; connections were reused since", nil
	}
	if l.Disabled > 0 {
		yield(Finding{"gave-up", gaveUp, nil,
			fmt.Sprintf("%s: %s given up on the cache%s", l.Path, counted(l.Disabled, "agent has", "agents have"), since),
			"A delivery agent that fails twice to talk to the cache does without for the rest of its life. The lines around tell why. Once the cache answers, new agents use it.", fix})
	}
	if l.Throttled > 0 {
		reason := "The cache's own line before it tells why."
		if l.Fatal != "" {
			reason = fmt.Sprintf("The last reason in the log: %s.", l.Fatal)
		}
		yield(Finding{"throttled", throttled, nil,
			fmt.Sprintf("%s: the cache did not start, %s%s", l.Path, counted(l.Throttled, "time", "times"), since),
			"master(8) waits a minute before it tries again. " + reason + " Once it answers, new agents use it.", fix})
	}
	if l.Lowered != "" {
		yield(Finding{"logged-time-to-live", Note, nil,
			fmt.Sprintf("%s: a time to live was lowered: %s", l.Path, l.Lowered),
			"connection_cache_ttl_limit did it, at that time.", nil})
	}
}

func counted(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// enoughDeliveries is how many have to be in the log before it means something
// that none of them was over a cached connection.
const enoughDeliveries = 50

func nothingReused(s *System, yield func(Finding)) {
	if l := s.Log; l.Reused == 0 && l.Deliveries >= enoughDeliveries {
		yield(Finding{"nothing-reused", Warning, nil,
			fmt.Sprintf("%s: none of the last %d deliveries was over a cached connection", l.Path, l.Deliveries),
			"A line with conn_use= would be one. The other findings may say why; mail to ever new destinations has nothing to reuse.", nil})
	}
}
