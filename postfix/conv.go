package postfix

import (
	"errors"
	"math"
	"strings"
	"syscall"
	"time"
)

// ParseTime converts a time value as global/conv_time.c, conv_time, does: a
// decimal number and the first character after it as the unit, seconds if there
// is none. What stands behind the unit is not looked at. A unit without number is
// zero, because strtol(3) says so.
func ParseTime(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	n, rest := leadingInt(s)
	if n < 0 || n > math.MaxInt32 {
		return 0, false
	}
	unit := 1
	if rest != "" {
		switch rest[0] {
		case 's':
		case 'm':
			unit = 60
		case 'h':
			unit = 60 * 60
		case 'd':
			unit = 24 * 60 * 60
		case 'w':
			unit = 7 * 24 * 60 * 60
		default:
			return 0, false
		}
	}
	// Postfix keeps seconds in an int, and refuses one multiple more than it must.
	if unit > 1 && n >= math.MaxInt32/unit {
		return 0, false
	}
	return time.Duration(n*unit) * time.Second, true
}

// parseInt converts an integer as global/mail_conf_int.c, convert_mail_conf_int,
// does: a decimal number of 32 bits and nothing else.
func parseInt(s string) (int, bool) {
	n, rest := leadingInt(s)
	return n, s != "" && rest == "" && math.MinInt32 <= n && n <= math.MaxInt32
}

// leadingInt reads the number that s begins with as strtol(3) does, and returns
// what follows it. Without a number it is 0 and all of s follows. A number too
// large for 32 bits comes back as one that is too large.
func leadingInt(s string) (n int, rest string) {
	digits := strings.TrimLeft(s, spaces)
	sign := 1
	if digits != "" && (digits[0] == '-' || digits[0] == '+') {
		if digits[0] == '-' {
			sign = -1
		}
		digits = digits[1:]
	}
	i := 0
	for ; i < len(digits) && isDigit(digits[i]); i++ {
		if n <= math.MaxInt32 {
			n = n*10 + int(digits[i]-'0')
		}
	}
	if i == 0 {
		return 0, s
	}
	return sign * n, digits[i:]
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// parseGeneration converts $GENERATION: digits, read as octal up to the first
// that is not (master/multi_server.c, multi_server_main).
func parseGeneration(s string) (uint32, bool) {
	if s == "" {
		return 0, false
	}
	var gen uint32
	octal := true
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		octal = octal && s[i] < '8'
		if octal {
			gen = gen<<3 | uint32(s[i]-'0')
		}
	}
	return gen, true
}

// cause is the error's text as C's strerror(3) has it: "No such file or
// directory". Go has the same texts with a small letter.
func cause(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}
