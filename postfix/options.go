package postfix

import (
	"errors"
	"fmt"
	"strings"
)

// optionString is that of every Postfix daemon (master/multi_server.c,
// multi_server_main); a colon follows an option that takes a value.
const optionString = "cdDi:lm:n:o:s:St:uvVz"

// options is the command line of a Postfix daemon.
type options struct {
	Chroot       bool     // -c: make queue_directory the root directory
	Foreground   bool     // -d: not in daemon mode; standard input may be a terminal
	Debug        bool     // -D: run debugger_command
	Alone        bool     // -l: the process limit is 1
	Service      string   // -n: service name; empty if it is the program's
	Sockets      int      // -s: number of listening sockets, at least 1
	Stdin        bool     // -S: serve one client on standard input
	Transport    string   // -t: unix, inet or pass; empty if not given
	Unprivileged bool     // -u: run as mail_owner
	Verbose      int      // -v: how many
	Stderr       bool     // -V: log to standard error too
	Overrides    []string // -o, -i and -m as name=value, in order; the last one counts
	Args         []string // what follows the options
}

// parseOptions reads the words after the program's name. The rules are those of
// getopt(3) as Postfix has it on Linux: options may be bundled, a value may be
// glued to its option, "--" or the first word that is no option ends them. The
// error texts are Postfix's.
func parseOptions(args []string) (options, error) {
	o := options{Sockets: 1}
	for len(args) > 0 {
		word := args[0]
		if len(word) < 2 || word[0] != '-' {
			break
		}
		args = args[1:]
		if word == "--" {
			break
		}
		for i := 1; i < len(word); i++ {
			c := word[i]
			at := strings.IndexByte(optionString, c)
			if at < 0 || c == ':' {
				return o, invalidOption(c)
			}
			if !strings.HasPrefix(optionString[at+1:], ":") {
				o.flag(c)
				continue
			}
			value := word[i+1:]
			if value == "" {
				// getopt reports a missing value as it does an unknown option.
				if len(args) == 0 {
					return o, invalidOption(c)
				}
				value, args = args[0], args[1:]
			}
			if err := o.value(c, value); err != nil {
				return o, err
			}
			break
		}
	}
	o.Args = args
	return o, nil
}

func invalidOption(c byte) error { return fmt.Errorf("invalid option: %s", string([]byte{c})) }

// flag notes an option without a value.
func (o *options) flag(c byte) {
	switch c {
	case 'c':
		o.Chroot = true
	case 'd':
		o.Foreground = true
	case 'D':
		o.Debug = true
	case 'l':
		o.Alone = true
	case 'S':
		o.Stdin = true
	case 'u':
		o.Unprivileged = true
	case 'v':
		o.Verbose++
	case 'V':
		o.Stderr = true
	case 'z': // there is no process limit: that -l is missing says enough
	}
}

// value notes an option with its value.
func (o *options) value(c byte, value string) error {
	switch c {
	case 'i':
		o.Overrides = append(o.Overrides, "max_idle="+value)
	case 'm':
		o.Overrides = append(o.Overrides, "max_use="+value)
	case 'n':
		o.Service = value
	case 'o':
		name, val, err := splitNameValue(value)
		if err != nil {
			return fmt.Errorf("invalid \"-o %s\" option value: %w", value, err)
		}
		o.Overrides = append(o.Overrides, name+"="+val)
	case 's':
		n, _ := leadingInt(value)
		if n <= 0 {
			return fmt.Errorf("invalid socket_count: %s", value)
		}
		o.Sockets = n
	case 't':
		o.Transport = value
	}
	return nil
}

// spaces are those of isspace(3) in the C locale.
const spaces = " \t\n\v\f\r"

// splitNameValue splits "name = value" by the rules, and with the errors, of
// util/split_nameval.c.
func splitNameValue(s string) (name, value string, err error) {
	s = strings.Trim(s, spaces)
	if s == "" || s[0] == '=' {
		return "", "", errors.New("missing attribute name")
	}
	name, value, found := strings.Cut(s, "=")
	name = strings.TrimRight(name, spaces)
	if !found || strings.ContainsAny(name, spaces) {
		return "", "", errors.New("missing '=' after attribute name")
	}
	return name, strings.TrimLeft(value, spaces), nil
}
