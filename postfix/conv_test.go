package postfix

import (
	"io/fs"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseTime(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"0": 0, "7": 7 * time.Second, "7s": 7 * time.Second, "2m": 2 * time.Minute,
		"3h": 3 * time.Hour, "1d": 24 * time.Hour, "2w": 14 * 24 * time.Hour,
		"2147483647": 2147483647 * time.Second, "3549w": 3549 * 7 * 24 * time.Hour,
		" 5": 5 * time.Second, "+5m": 5 * time.Minute, "-0": 0,
		"5sx": 5 * time.Second, "5s x": 5 * time.Second, // what follows the unit is not looked at
		"s": 0, "m": 0, // a unit alone
	} {
		if got, ok := ParseTime(s); !ok || got != want {
			t.Errorf("%q: %v %v, want %v", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "later", "5S", "5M", "5 s", "5.5s", "-5", "x5",
		"2147483648", "99999999999999999999", "-99999999999999999999", "3550w", "24855d", "35791394m", "0x10", " s"} {
		if got, ok := ParseTime(s); ok {
			t.Errorf("%q: %v, want an error", s, got)
		}
	}
}

func TestParseInt(t *testing.T) {
	for s, want := range map[string]int{
		"0": 0, "7": 7, "-7": -7, "+7": 7, " 7": 7, "010": 10,
		"2147483647": 1<<31 - 1, "-2147483648": -1 << 31,
	} {
		if got, ok := parseInt(s); !ok || got != want {
			t.Errorf("%q: %v %v, want %v", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "-", "x", "7x", "7 ", "7k", "0x10", "1.5", "2147483648", "-2147483649", "99999999999999999999"} {
		if got, ok := parseInt(s); ok {
			t.Errorf("%q: %v, want an error", s, got)
		}
	}
}

func TestParseGeneration(t *testing.T) {
	for s, want := range map[string]uint32{"0": 0, "17": 15, "777": 511, "37777777777": 1<<32 - 1, "18": 1, "9": 0} {
		if got, ok := parseGeneration(s); !ok || got != want {
			t.Errorf("%q: %o %v, want %o", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "x", "1x", "-1", " 1"} {
		if got, ok := parseGeneration(s); ok {
			t.Errorf("%q: %o, want an error", s, got)
		}
	}
}

func TestCause(t *testing.T) {
	wantEqual(t, "plain", cause(unix.ENOENT), "No such file or directory")
	wantEqual(t, "wrapped", cause(&fs.PathError{Op: "open", Path: "/x", Err: unix.EACCES}), "Permission denied")
	wantEqual(t, "other", cause(fs.ErrClosed), "file already closed")
}
