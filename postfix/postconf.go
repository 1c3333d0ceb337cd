package postfix

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// postconfPlaces is where postconf(1) may be; master(8) gives its children no PATH.
var postconfPlaces = []string{
	"/usr/sbin/postconf",
	"/usr/local/sbin/postconf",
	"/sbin/postconf",
	"/usr/bin/postconf",
	"/usr/local/bin/postconf",
	"/opt/postfix/sbin/postconf",
}

// postconfLimit bounds the wait for postconf(1). It takes milliseconds, but up to
// three seconds while main.cf is fresh, and longer on a machine that thrashes.
const postconfLimit = time.Minute

// postconf asks postconf(1) for parameters, so that main.cf is read by Postfix's
// own code: continuation lines, which definition counts, $name and ${name?...},
// the defaults that the distribution compiled in.
type postconf struct {
	path      string        // empty: look in postconfPlaces
	program   string        // what $process_name expands to
	service   string        // what $service_name expands to
	overrides []string      // name=value, as from -o
	limit     time.Duration // how long an answer may take
	config    string        // MAIL_CONFIG; empty: the directory that postconf(1) was built for
}

// answer is what postconf(1) said.
type answer struct {
	values   rawParams
	warnings []string // for the log: a daemon that reads main.cf itself gives them too
	mistake  error    // in the new parameters, which have their defaults then
}

// ask runs postconf(1) once, for the expanded values of the parameters named. If
// it fails, the error is its own last word; a Postfix program that reads the same
// main.cf ends with the same.
//
// A name that Postfix does not have is unknown to postconf(1) too, unless it is set
// and the value of another parameter refers to it; so one does. A reference in such a parameter that
// cannot be expanded ends postconf(1), and not a daemon: then it is asked without them.
func (p *postconf) ask(names ...string) (answer, error) {
	options := append([]string{"-x"}, p.arguments("")...)
	a, err := p.run(append(options, "-o", privateReferrer+"="+references(names)), names)
	if err != lastWord(macroError) {
		return a, err
	}
	known := slices.DeleteFunc(slices.Clone(names), isNew)
	without, failed := p.run(options, known)
	if failed != nil {
		return a, err
	}
	without.mistake = fmt.Errorf("a parameter of the connection cache: %s", a.why(err))
	return without, nil
}

// macroError is how postconf(1) ends if it cannot expand something; a warning before it says what.
const macroError = "macro processing error"

func isNew(name string) bool {
	_, ok := newDefaults[name]
	return ok
}

// references is a value that refers to those of the names that are new.
func references(names []string) string {
	var value strings.Builder
	for _, name := range names {
		if isNew(name) {
			value.WriteString("$" + name + " ")
		}
	}
	return value.String()
}

// askDebugger returns debugger_command, expanded. Only there Postfix has
// $process_id set, and postconf(1) puts its own in its place; so the value is
// fetched as it stands in main.cf, and given back as an override to be expanded.
func (p *postconf) askDebugger() (string, error) {
	const name = "debugger_command"
	raw, err := p.run(p.arguments(""), []string{name})
	if err != nil {
		return "", err
	}
	q := *p
	q.overrides = append(slices.Clip(q.overrides), name+"="+raw.values[name])
	a, err := p.run(append([]string{"-x"}, q.arguments(strconv.Itoa(os.Getpid()))...), []string{name})
	return a.values[name], err
}

// Private names: two for what postconf(1) will not let be overridden, and one for
// the parameter that refers to the new ones.
const (
	privateService  = "_scache_service_name"
	privatePID      = "_scache_process_id"
	privateReferrer = "_scache_parameters"
)

// readOnlyName matches a reference to a parameter that postconf(1) does not know
// the daemon's value of; $$ stands for a dollar and begins no reference.
var readOnlyName = regexp.MustCompile(`\$\$|\$[({]?(service_name|process_id)\b`)

// arguments turns the overrides into -o options. $process_name needs nothing: it
// is taken from argv[0].
func (p *postconf) arguments(pid string) []string {
	var args []string
	private := false
	for _, o := range p.overrides {
		renamed := readOnlyName.ReplaceAllStringFunc(o, func(ref string) string {
			ref = strings.Replace(ref, "service_name", privateService, 1)
			return strings.Replace(ref, "process_id", privatePID, 1)
		})
		private = private || renamed != o
		args = append(args, "-o", renamed)
	}
	if private {
		args = append(args, "-o", privateService+"="+p.service, "-o", privatePID+"="+pid)
	}
	return args
}

// run runs postconf(1), which reads master.cf, expands all of main.cf, and reads the files of its ldap:
// and other maps, whatever it is asked. At a mistake there it ends; a daemon does not look at any of
// that, and mail goes on while somebody edits it. So if postconf(1) ends, it is asked again where there
// is no master.cf, and then where there is nothing but what the parameters named depend on. If it does
// not end then, its first word becomes a warning.
func (p *postconf) run(options, names []string) (answer, error) {
	a, err := p.runIn("", options, names)
	if word, ended := err.(lastWord); !ended || strings.Contains(string(word), "/main.cf") {
		return a, err
	}
	without, failed := p.runAlone(p.link, options, names)
	if failed != nil {
		without, failed = p.runAlone(func(alone string) error { return p.writeExcerpt(alone, options, names) }, options, names)
	}
	if _, ended := failed.(lastWord); ended {
		return without, failed
	}
	if failed != nil {
		return a, err
	}
	var reasons []string
	for _, w := range a.warnings {
		switch {
		case slices.Contains(without.warnings, w):
		case ofMainCf(w):
			without.warnings = append(without.warnings, w)
		default:
			reasons = append(reasons, w)
		}
	}
	a.warnings = reasons
	without.warnings = append(without.warnings, a.why(err))
	return without, nil
}

// runAlone is run with nothing but the main.cf that prepare makes in an empty directory.
func (p *postconf) runAlone(prepare func(alone string) error, options, names []string) (answer, error) {
	alone, err := os.MkdirTemp("", "scache-")
	if err != nil {
		return answer{}, err
	}
	defer os.RemoveAll(alone)
	if err := prepare(alone); err != nil {
		return answer{}, err
	}
	return p.runIn(alone, append([]string{"-o", "config_directory=" + p.directory()}, options...), names)
}

// directory is where main.cf is.
func (p *postconf) directory() string { return cmp.Or(p.config, "/etc/postfix") }

// link puts the whole main.cf into a directory.
func (p *postconf) link(alone string) error {
	return os.Symlink(filepath.Join(p.directory(), "main.cf"), filepath.Join(alone, "main.cf"))
}

// writeExcerpt writes an excerpt of main.cf into an empty directory.
func (p *postconf) writeExcerpt(alone string, options, names []string) error {
	all, err := os.ReadFile(filepath.Join(p.directory(), "main.cf"))
	if err != nil {
		return err
	}
	mainCf := filepath.Join(alone, "main.cf")
	write := func(text string) error {
		// Postfix waits for a file that has just been changed.
		return errors.Join(os.WriteFile(mainCf, []byte(text), 0o600), os.Chtimes(mainCf, time.Unix(0, 0), time.Unix(0, 0)))
	}
	if err := write(""); err != nil {
		return err
	}
	defaults, err := p.runIn(alone, []string{"-d"}, nil)
	if err != nil {
		return fmt.Errorf("defaults: %w", err) // no last word: it says nothing of the parameters named
	}
	return write(excerpt(string(all), defaults.values, options, names))
}

// reference matches the beginning of a reference to a parameter, which its name follows.
var reference = regexp.MustCompile(`\$(?:[({][\s\v]*)?(\w+)`)

// excerpt is main.cf with an empty line in place of each that does not define a parameter that is named, or
// that the options, the defaults or such a line refers to.
func excerpt(mainCf string, defaults rawParams, options, names []string) string {
	lines := strings.SplitAfter(mainCf, "\n")
	defined := make([]string, len(lines))
	texts := maps.Clone(defaults)
	name := ""
	for i, line := range lines {
		text := strings.Trim(line, spaces)
		if text == "" || text[0] == '#' {
			continue
		}
		if text[0] == line[0] { // else it continues the one before
			name, _, _ = strings.Cut(text, "=")
			name = strings.Trim(name, spaces)
		}
		defined[i] = name
		texts[name] += line
	}
	wanted := map[string]bool{}
	var want func(name string)
	refer := func(text string) {
		for _, found := range reference.FindAllStringSubmatch(text, -1) {
			want(found[1])
		}
	}
	want = func(name string) {
		if !wanted[name] {
			wanted[name] = true
			refer(texts[name])
		}
	}
	refer(strings.Join(options, "\n"))
	for _, name := range names {
		want(name)
	}
	for i := range lines {
		if !wanted[defined[i]] {
			lines[i] = "\n"
		}
	}
	return strings.Join(lines, "")
}

// lastWord is the message with which postconf(1) has ended.
type lastWord string

func (w lastWord) Error() string { return string(w) }

// why is an error of postconf(1), with what it said before if that is the reason.
func (a answer) why(err error) string {
	if err != lastWord(macroError) {
		return err.Error()
	}
	return strings.Join(append(a.warnings, macroError), "; ")
}

// runIn runs postconf(1) with its files in another directory, of which its messages say nothing; empty: where they are.
func (p *postconf) runIn(directory string, options, names []string) (answer, error) {
	path, err := p.find()
	if err != nil {
		return answer{}, err
	}
	if directory != "" {
		options = append([]string{"-c", directory}, options...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.limit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Args = append(append([]string{p.program}, options...), names...)
	cmd.Env = p.environment()
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return answer{}, fmt.Errorf("%s: no answer within %v", path, p.limit)
	}
	text := stderr.String()
	if directory != "" {
		text = strings.ReplaceAll(text, directory, p.directory())
	}
	said := p.messages(text)
	if err != nil {
		return answer{warnings: mainWarnings(said, true)}, p.failure(path, said, err)
	}
	values, err := parseValues(stdout.String(), names)
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", path, err)
	}
	return answer{values: values, warnings: mainWarnings(said, false)}, nil
}

func (p *postconf) find() (string, error) {
	if p.path != "" {
		return p.path, nil
	}
	for _, path := range postconfPlaces {
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("no postconf(1) command: looked for %s", strings.Join(postconfPlaces, ", "))
}

// environment is what postconf(1) needs of ours.
func (p *postconf) environment() []string {
	env := []string{"LANG=C"}
	if p.config != "" {
		env = append(env, "MAIL_CONFIG="+p.config)
	}
	return env
}

// messages are the lines of standard error without the program's name in front.
func (p *postconf) messages(stderr string) []string {
	var lines []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSuffix(line, "\n")
		lines = append(lines, strings.TrimPrefix(line, p.program+": "))
	}
	return lines
}

// failure is why postconf(1) ended with an error.
func (p *postconf) failure(path string, said []string, err error) error {
	for i := len(said) - 1; i >= 0; i-- {
		if reason, ok := strings.CutPrefix(said[i], "fatal: "); ok {
			return lastWord(reason)
		}
	}
	if pathErr := new(os.PathError); errors.As(err, &pathErr) {
		return fmt.Errorf("exec %s: %s", path, cause(err))
	}
	return fmt.Errorf("%s: %v", path, err)
}

// warnings are the texts of the lines that are warnings.
func warnings(said []string) []string {
	var texts []string
	for _, line := range said {
		if text, ok := strings.CutPrefix(line, "warning: "); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// mainWarnings are those that come from reading main.cf (util/dict.c,
// util/readlline.c). The others, about unused parameters and about master.cf, are
// postconf's own; a daemon does not give them. After a failure those without a file
// are wanted as well: they tell the reason of a macroError.
func mainWarnings(said []string, failed bool) (wanted []string) {
	for _, text := range warnings(said) {
		reason := failed && !strings.Contains(text, ".cf") && !strings.Contains(text, "unknown parameter")
		if (ofMainCf(text) || reason) && !slices.Contains(wanted, text) {
			wanted = append(wanted, text)
		}
	}
	return wanted
}

// ofMainCf reports whether a warning is about a line of main.cf.
func ofMainCf(warning string) bool {
	return strings.Contains(warning, "/main.cf, line ") || strings.Contains(warning, "/main.cf: logical line ")
}

// parseValues reads lines of the form "name = value". Each value is one line, with
// the line breaks of main.cf gone. A new parameter that is not set has no line; and
// the maillog_file family may be missing: it came with Postfix 3.4.
func parseValues(stdout string, names []string) (rawParams, error) {
	values := maps.Clone(newDefaults)
	for line := range strings.Lines(stdout) {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("cannot make sense of %q", line)
		}
		values[strings.TrimSpace(name)] = strings.Trim(value, spaces)
	}
	for _, name := range names {
		if _, ok := values[name]; !ok && !strings.Contains(name, "log_") {
			return nil, fmt.Errorf("no value for %s", name)
		}
	}
	return values, nil
}
