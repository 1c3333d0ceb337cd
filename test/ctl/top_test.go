package ctl

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// busy makes the server know three destinations that differ in all that top sorts
// by.
func busy(s *server) {
	s.t.Helper()
	s.save(`few look-ups, 3 connections`, "x", 3)
	s.save(`middle`, "y", 1)
	c, ctx := s.dial(), limit(s.t)
	for range 20 {
		c.FindDestination(ctx, `all misses, many look-ups`)
	}
	conn := dialSelf(s.t)
	for range 8 {
		found, err := c.FindDestination(ctx, `middle`)
		must(s.t, err)
		found.File.Close()
		must(s.t, c.SaveEndpoint(ctx, time.Minute, "y", "", conn))
	}
	found, err := c.FindDestination(ctx, `few look-ups, 3 connections`)
	must(s.t, err)
	found.File.Close()
	must(s.t, c.SaveEndpoint(ctx, time.Minute, "x", "", conn))
}

// rows is in which order the destinations of busy are shown, by their first letters.
func rows(screen string) (order string) {
	for _, m := range regexp.MustCompile(`(?m)^(few|middle|all) `).FindAllStringSubmatch(screen, -1) {
		order += m[1][:1]
	}
	return order
}

func TestTop(t *testing.T) {
	t.Parallel()
	s := serve(t, "-ttl-limit", "60s")
	busy(s)
	term := newTerminal(t, 100, 30, "sh")
	term.line("scachectl top -interval 100ms -socket " + s.socket + "; echo status $?")
	inOrder := func(want string) {
		t.Helper()
		term.await("the order "+want, func(screen string) bool { return rows(screen) == want })
	}
	inOrder("amf") // by look-ups
	for _, c := range []struct{ key, order string }{
		{"n", "afm"}, {"c", "fma"}, {"m", "afm"}, {"h", "fma"}, {"r", "afm"}, {"l", "amf"}, {"r", "fma"},
		{"n", "afm"}, {">", "fma"}, {"<", "afm"}, {"Right", "fma"}, {"l", "amf"}, {"Down", "mf"}, {"Down", "f"}, {"Up", "mf"}, {"Home", "amf"},
	} {
		term.keys(c.key)
		inOrder(c.order)
	}
	screen := term.screen()
	for _, want := range []string{"scache ", s.socket, "caching", "look-ups", "latency", "cached", "of ", "LOOK-UPS▼", "left", "taken", "q quit"} {
		if !strings.Contains(screen, want) {
			t.Errorf("no %q in\n%s", want, screen)
		}
	}

	for _, size := range [][2]int{{60, 14}, {140, 40}, {30, 5}, {100, 30}} {
		term.tmux("resize-window", "-x", fmt.Sprint(size[0]), "-y", fmt.Sprint(size[1]))
		term.await(fmt.Sprintf("a screen of %v", size), func(screen string) bool {
			lines := strings.Split(strings.TrimRight(screen, "\n"), "\n")
			return len(lines) == size[1] && strings.HasPrefix(lines[0], "scache ") && strings.HasPrefix(lines[len(lines)-1], "q quit")
		})
	}

	s.ctl("pause")
	term.awaitText("PAUSED")
	s.ctl("resume")
	term.await("no pause", func(screen string) bool { return !strings.Contains(screen, "PAUSED") })

	s.stop()
	term.awaitText("LOST")
	term.awaitText("no socket at")
	s.start()
	term.await("the new server", func(screen string) bool {
		return !strings.Contains(screen, "LOST") && strings.Contains(screen, "caching") && rows(screen) == ""
	})

	term.keys("q")
	term.awaitText("status 0")
	term.wantRestored()
}

// However top ends, the terminal is the shell's again.
func TestTopEnds(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for _, how := range []string{"q", "C-c", "Escape", "TERM", "INT"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			term := newTerminal(t, 80, 24, "sh")
			pid := filepath.Join(t.TempDir(), "pid")
			term.line("sh -c 'echo $$ >" + pid + "; exec scachectl top -socket " + s.socket + "'; echo status $?")
			term.awaitText("q quit")
			if how == strings.ToUpper(how) {
				term.tmux("run-shell", "kill -"+how+" $(cat "+pid+")")
			} else {
				term.keys(how)
			}
			term.awaitText("status 0")
			term.wantRestored()
		})
	}
}

// In a terminal there are colours, unless NO_COLOR says no; elsewhere there are none.
func TestColours(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for environment, want := range map[string]bool{"NO_COLOR=": true, "NO_COLOR=1": false} {
		term := newTerminal(t, 80, 24, "sh", environment)
		term.line("scachectl status -socket " + s.socket)
		term.awaitText("longest turn")
		if coloured := strings.Contains(term.tmux("capture-pane", "-p", "-e"), "\x1b[32mcaching"); coloured != want {
			t.Errorf("%s: colours: %v, want %v", environment, coloured, want)
		}
	}
	if text := s.ctl("status"); strings.Contains(text, "\x1b") {
		t.Errorf("colours where there is no terminal: %q", text)
	}
	if r := run(t, "top", "-socket", s.socket); r.status != 2 || !strings.Contains(r.stderr, "needs a terminal") {
		t.Errorf("top without a terminal: %+v", r)
	}
}

func TestTopInJSON(t *testing.T) {
	t.Parallel()
	s := serve(t, "-ttl-limit", "60s")
	text := s.ctl("top", "-json", "-count", "2", "-interval", "100ms")
	if lines := strings.Split(text, "\n"); len(lines) != 3 || !strings.Contains(lines[1], `"requests_per_second":`) {
		t.Errorf("printed %s", text)
	}

	// Rates are those of the interval: what was asked for once is in one line.
	cmd := exec.CommandContext(limit(t), scachectl, "top", "-json", "-interval", "100ms", "-socket", s.socket)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	lookups := func() float64 {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no line: %v", lines.Err())
		}
		return decode[map[string]any](t, lines.Text())["lookups_per_second"].(float64)
	}
	lookups()
	s.dial().FindEndpoint(limit(t), "x")
	for lookups() == 0 {
	}
	for range 3 {
		if n := lookups(); n != 0 {
			t.Errorf("%v look-ups per second, when it is over", n)
		}
	}
	// Who interrupts it has seen enough.
	must(t, cmd.Process.Signal(syscall.SIGINT))
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("interrupted: %v, %s", err, stderr.String())
	}

	cmd = exec.CommandContext(limit(t), scachectl, "top", "-json", "-interval", "100ms", "-socket", s.socket)
	out, err = cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines = bufio.NewScanner(out)
	lookups()
	s.stop()
	for lines.Scan() {
	}
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("when the server has ended: %v", cmd.ProcessState)
	}
}

// What is completed are the names and labels that there are, each once, as flush takes them.
func TestCompletedWords(t *testing.T) {
	t.Parallel()
	s := serve(t, "-ttl-limit", "60s")
	s.save("smtp\na.test\n", endpointA, 2)
	s.save("smtp\nb.test\n", endpointB, 1)
	c := s.dial()
	must(t, c.SaveDestination(limit(t), time.Minute, "smtp\na.test\n", "", endpointB))
	for line, want := range map[string]string{
		"flush|":                             ":4 all destination endpoint pattern",
		"flush|endpoint|":                    `:4 smtp\n192.0.2.1\n25\n0\n smtp\n192.0.2.2\n25\n0\n`,
		`flush|endpoint|smtp\n192.0.2.1`:     `:4 smtp\n192.0.2.1\n25\n0\n`,
		"flush|destination|":                 `:4 smtp\na.test\n smtp\nb.test\n`,
		"flush|pattern|":                     ":4",
		`flush|endpoint|smtp\n192.0.2.1\n|s`: ":4",
		"limits|size_limit=1|":               ":6 binding_limit= client_memory_limit= destination_limit= endpoint_limit= size_limit= text_limit= ttl_limit=",
	} {
		r := run(t, append([]string{"__complete", "-socket", s.socket}, strings.Split(line, "|")...)...)
		words := strings.Fields(r.stdout)
		slices.Sort(words)
		if got := strings.Join(words, " "); r.status != 0 || got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

// The completion loads in bash, and completes.
func TestCompletion(t *testing.T) {
	t.Parallel()
	s := serve(t, "-ttl-limit", "60s")
	s.save("a", endpointA, 1)
	term := newTerminal(t, 100, 30, "bash --norc --noprofile", "SCACHE_SOCKET="+s.socket)
	term.line(". /usr/share/bash-completion/bash_completion && . <(scachectl completion bash) && echo loaded")
	term.awaitText("\nloaded")
	for typed, want := range map[string]string{
		"scachectl sta":               "scachectl status",
		"scachectl list --sort rem":   "scachectl list --sort remaining",
		"scachectl flush dest":        "scachectl flush destination",
		"scachectl list bi":           "scachectl list bindings",
		"scachectl doctor --conf":     "scachectl doctor --config",
		"scachectl limits endpoint_l": "scachectl limits endpoint_limit=",
	} {
		term.keys("C-u")
		term.tmux("send-keys", "-l", typed)
		term.keys("Tab")
		term.awaitText(want)
	}
	// Labels come from the cache; the backslashes are quoted for the shell.
	term.keys("C-u")
	term.tmux("send-keys", "-l", "scachectl flush endpoint smtp")
	term.keys("Tab")
	term.awaitText("192.0.2.1")
	term.keys("Enter")
	term.awaitText("closed 1 connection")
}

// Top and status agree with what was done: the same server is asked by both.
func TestStatus(t *testing.T) {
	t.Parallel()
	s := serve(t, "-ttl-limit", "60s")
	busy(s)
	v := statistics(t, s.socket)
	want := map[string]int64{
		"destination_hits": 9, "destination_misses": 20, "connections": 4, "connections_saved": 13, "closed_taken": 9,
		"endpoints": 2, "destinations": 2, "bindings": 2, "paused": 0,
	}
	for name, n := range want {
		if v[name] != n {
			t.Errorf("%s is %d, want %d", name, v[name], n)
		}
	}
	text := s.ctl("status")
	for _, pattern := range []string{`by destination +9 +20 +31%`, `connections +4 +\d+ +[\d,]+`, `taken +9 +69%`, `requests [\d,]+: mean`} {
		if !regexp.MustCompile(pattern).MatchString(text) {
			t.Errorf("nothing like %q in\n%s", pattern, text)
		}
	}
	if lines := strings.Split(text, "\n"); slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, " ") }) {
		t.Errorf("blanks at the ends of lines:\n%s", text)
	}
}
