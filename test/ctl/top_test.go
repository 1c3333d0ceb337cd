package ctl

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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
