package postfix

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// maxText bounds the text of a line in bytes, as util/msg_syslog.c and
// util/msg_logger.c do: logging without a bound is a liability.
const maxText = 2000

// Severity of a line; the order is that of Postfix's msg.h.
type severity int

const (
	sevInfo severity = iota
	sevWarning
	sevError
	sevFatal
	sevPanic
)

// severities gives each its prefix and its syslog priority (util/msg_syslog.c,
// msg_syslog_print: fatal and panic are both LOG_CRIT).
var severities = [...]struct {
	prefix   string
	priority int
	level    string // in JSON
}{
	sevInfo:    {"", 6, "info"},
	sevWarning: {"warning: ", 4, "warning"},
	sevError:   {"error: ", 3, "error"},
	sevFatal:   {"fatal: ", 2, "fatal"},
	sevPanic:   {"panic: ", 2, "panic"},
}

// facilities are those of syslog_facility (util/msg_syslog.c), shifted as
// syslog(3) has them.
var facilities = map[string]int{
	"kern": 0 << 3, "user": 1 << 3, "mail": 2 << 3, "daemon": 3 << 3, "auth": 4 << 3,
	"syslog": 5 << 3, "lpr": 6 << 3, "news": 7 << 3, "uucp": 8 << 3, "cron": 9 << 3,
	"authpriv": 10 << 3, "ftp": 11 << 3,
	"local0": 16 << 3, "local1": 17 << 3, "local2": 18 << 3, "local3": 19 << 3,
	"local4": 20 << 3, "local5": 21 << 3, "local6": 22 << 3, "local7": 23 << 3,
}

// record is one thing to say; text is masked and bounded already.
type record struct {
	when time.Time
	sev  severity
	text []byte
}

// format appends a record as one kind of log wants it.
type format func(dst []byte, r record) []byte

// ident is who speaks.
type ident struct {
	tag string // postfix/scache
	pid int
}

// postlogFormat is what postlogd(8) takes: no priority, no newline, and the day
// of the month with two digits (util/msg_logger.c, msg_logger_print).
func postlogFormat(who ident, host string) format {
	return func(dst []byte, r record) []byte {
		dst = r.when.AppendFormat(dst, "Jan 02 15:04:05 ")
		dst = append(dst, host...)
		dst = append(dst, ' ')
		return who.append(dst, r)
	}
}

// syslogFormat is what syslog(3) sends: a priority, and the day padded with a
// blank.
func syslogFormat(who ident, facility int) format {
	return func(dst []byte, r record) []byte {
		dst = appendPriority(dst, facility|severities[r.sev].priority)
		dst = r.when.AppendFormat(dst, "Jan _2 15:04:05 ")
		return who.append(dst, r)
	}
}

// datedFormat is a line of its own with date and process: standard error of
// `scache serve`.
func datedFormat(who ident) format {
	return func(dst []byte, r record) []byte {
		dst = r.when.AppendFormat(dst, "Jan 02 15:04:05 ")
		return append(who.append(dst, r), '\n')
	}
}

// journalFormat is what journald(8) takes from a service's standard error (sd-daemon(3)):
// a priority, no facility; date and process it knows itself.
func journalFormat(dst []byte, r record) []byte {
	dst = appendPriority(dst, severities[r.sev].priority)
	return append(r.append(dst), '\n')
}

func appendPriority(dst []byte, priority int) []byte {
	dst = append(dst, '<')
	dst = strconv.AppendInt(dst, int64(priority), 10)
	return append(dst, '>')
}

// jsonFormat is an object a line, for programs. The time has always the same number of
// digits, so that lines sort by it as text.
func jsonFormat(pid int) format {
	return func(dst []byte, r record) []byte {
		dst = append(dst, `{"time":"`...)
		dst = r.when.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000Z07:00")
		dst = append(dst, `","level":"`...)
		dst = append(dst, severities[r.sev].level...)
		dst = append(dst, `","process":`...)
		dst = strconv.AppendInt(dst, int64(pid), 10)
		dst = append(dst, `,"message":"`...)
		// A masked text is UTF-8 without control characters: two bytes are left that
		// JSON does not take as they are.
		for _, c := range r.text {
			if c == '"' || c == '\\' {
				dst = append(dst, '\\')
			}
			dst = append(dst, c)
		}
		return append(dst, "\"}\n"...)
	}
}

// bareFormat is what -V writes to standard error (util/msg_vstream.c,
// msg_vstream_print): neither date nor process.
func bareFormat(tag string) format {
	return func(dst []byte, r record) []byte {
		dst = append(dst, tag...)
		dst = append(dst, ": "...)
		return append(r.append(dst), '\n')
	}
}

func (who ident) append(dst []byte, r record) []byte {
	dst = append(dst, who.tag...)
	dst = append(dst, '[')
	dst = strconv.AppendInt(dst, int64(who.pid), 10)
	dst = append(dst, "]: "...)
	return r.append(dst)
}

func (r record) append(dst []byte) []byte {
	dst = append(dst, severities[r.sev].prefix...)
	return append(dst, r.text...)
}

// mask replaces, in place, each byte that is not printable by '?'
// (util/printable.c). UTF-8 passes if smtputf8_enable is yes; unlike Postfix's,
// this test lets only well-formed UTF-8 pass, and none of its control characters.
func mask(text []byte, utf8Passes bool) []byte {
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f {
				text[i] = '?'
			}
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		if !utf8Passes || (r == utf8.RuneError && size == 1) || r < 0xa0 {
			for j := range size {
				text[i+j] = '?'
			}
		}
		i += size
	}
	return text
}

// bound cuts text to maxText bytes, and not in the middle of a character.
func bound(text []byte) []byte {
	if len(text) <= maxText {
		return text
	}
	cut := maxText
	for cut > maxText-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}
