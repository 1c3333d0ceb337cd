package policy

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxFile and maxRules bound a file: the rules are asked one after the other.
const (
	maxFile  = 1 << 20
	maxRules = 1000
)

// Load reads a file of rules. Errors name the file, and the line if it has a wrong one.
func Load(path string) (*Policy, error) {
	// O_NONBLOCK: a pipe without a writer would be waited for.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

// Error is what is wrong with a file of rules.
type Error struct {
	File string
	Line int // from 1 on
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("%s, line %d: %s", e.File, e.Line, e.Text) }

// Parse reads the text of a file of rules; name is the file's, for messages. The error
// is an [*Error] for the first wrong line, or says that the file is too long.
func Parse(name string, text []byte) (*Policy, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: more than %d bytes", name, maxFile)
	}
	p := &Policy{File: name, seed: maphash.MakeSeed()}
	var words []word // of the rule that is being read
	line := 0
	fail := func(line int, err error) error { return &Error{name, line, err.Error()} }
	for physical := range strings.Lines(string(text)) {
		line++
		found := strings.Fields(physical)
		if len(found) == 0 || found[0][0] == '#' {
			continue
		}
		if continued := physical[0] == ' ' || physical[0] == '\t'; continued && len(words) == 0 {
			return nil, fail(line, errors.New("white space at the beginning continues a rule, and there is none"))
		} else if !continued {
			if at, err := p.add(words); err != nil {
				return nil, fail(at, err)
			}
			words = nil
		}
		for _, f := range found {
			words = append(words, word{f, line})
		}
	}
	if at, err := p.add(words); err != nil {
		return nil, fail(at, err)
	}
	return p, nil
}

// word is one of a rule's, with the line that it stands on.
type word struct {
	text string
	line int
}

// add makes a rule of words, if there are any. line is where an error is.
func (p *Policy) add(words []word) (line int, err error) {
	if len(words) == 0 {
		return 0, nil
	}
	if len(p.Rules) == maxRules {
		return words[0].line, fmt.Errorf("more than %d rules", maxRules)
	}
	r := ruleReader{Rule: Rule{Number: len(p.Rules), Line: words[0].line}}
	var texts []string
	for _, w := range words {
		if err := r.take(w.text); err != nil {
			return w.line, err
		}
		texts = append(texts, w.text)
	}
	if err := r.check(); err != nil {
		return words[0].line, err
	}
	r.text = strings.Join(texts, " ")
	p.hosts = p.hosts || slices.Contains(r.given, "host")
	p.Rules = append(p.Rules, r.Rule)
	return 0, nil
}

// ruleReader makes a rule of its words.
type ruleReader struct {
	Rule
	everything bool     // there was a *
	options    int      // so many
	given      []string // names so far
}

func (r *ruleReader) take(text string) error {
	if text == "*" {
		r.everything = true
		return nil
	}
	if text[0] == '#' {
		return fmt.Errorf("%s: a comment has a line of its own", text)
	}
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("%s: want NAME=VALUE, or * for everything", text)
	}
	if slices.Contains(r.given, name) {
		return fmt.Errorf("%s is given twice", name)
	}
	r.given = append(r.given, name)
	if make, ok := conditions[name]; ok {
		return r.takeCondition(name, value, make)
	}
	option, ok := options[name]
	if !ok {
		return fmt.Errorf("%s: no such name; there are the patterns %s and the options %s", name, names(conditions), names(options))
	}
	r.options++
	if !option.take(&r.Rule, strings.ToLower(value)) { // as yes and no in main.cf
		return fmt.Errorf("%s: want %s", text, option.want)
	}
	return nil
}

func (r *ruleReader) takeCondition(name, value string, make func([]string) (condition, error)) error {
	patterns := strings.Split(value, ",")
	if slices.Contains(patterns, "") {
		return fmt.Errorf("%s=%s: an empty pattern; there is no space beside commas", name, value)
	}
	c, err := make(patterns)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	r.conditions = append(r.conditions, c)
	return nil
}

// check looks at the rule as a whole.
func (r *ruleReader) check() error {
	switch {
	case r.everything && len(r.conditions) > 0:
		return errors.New("* is for everything, and there are other patterns")
	case !r.everything && len(r.conditions) == 0:
		return errors.New("no pattern; * is for everything")
	case r.options == 0:
		return fmt.Errorf("no option: one of %s", names(options))
	case r.Decline && (r.TTL != 0 || r.Keep != 0 || r.Order != ""):
		return errors.New("with cache=no there is nothing that ttl, keep and order could be for")
	}
	return nil
}

// options are what a rule can say.
var options = map[string]struct {
	take func(r *Rule, value string) bool
	want string
}{
	"cache": {func(r *Rule, value string) bool {
		r.Decline = value == "no"
		return value == "yes" || value == "no"
	}, "yes or no"},
	"ttl": {func(r *Rule, value string) (ok bool) {
		r.TTL, ok = parseTTL(value)
		return ok
	}, "whole seconds, at least one, such as 30, 30s or 5m"},
	"keep": {func(r *Rule, value string) bool {
		if value == "unlimited" {
			r.Keep = Unlimited
			return true
		}
		n, err := strconv.ParseInt(value, 10, 32)
		r.Keep = int(n)
		return err == nil && n >= 1
	}, "a number, at least 1, or unlimited (cache=no keeps none)"},
	"order": {func(r *Rule, value string) bool {
		r.Order = value
		return value == "fifo" || value == "lifo"
	}, "fifo or lifo"},
	"handshake": {func(r *Rule, value string) bool {
		r.Handshake = value
		return value == "none" || value == "quit"
	}, "none or quit"},
}

func parseTTL(value string) (time.Duration, bool) {
	if _, err := strconv.Atoi(value); err == nil {
		value += "s"
	}
	d, err := time.ParseDuration(value)
	return d, err == nil && d >= time.Second && d%time.Second == 0
}

// names lists the keys of a table.
func names[T any](table map[string]T) string {
	var all []string
	for name := range table {
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
