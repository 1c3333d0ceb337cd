package ctl

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/scache/scache/internal/lab"
)

// terminal is a real one, of tmux, with a shell in it.
type terminal struct {
	t           *testing.T
	socket      string
	environment []string // the shell's
}

// newTerminal opens a terminal of so many columns and lines with a shell in it.
func newTerminal(t *testing.T, width, height int, shell string, environment ...string) *terminal {
	t.Helper()
	term := &terminal{t: t, socket: filepath.Join(t.TempDir(), "tmux")}
	term.environment = append([]string{"PATH=" + filepath.Dir(scachectl) + ":/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}, environment...)
	t.Cleanup(func() { exec.Command("tmux", "-S", term.socket, "kill-server").Run() })
	term.tmux("new-session", "-d", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height), shell)
	term.await("the prompt", func(screen string) bool { return strings.TrimSpace(screen) != "" })
	return term
}

func (term *terminal) tmux(arguments ...string) string {
	term.t.Helper()
	cmd := exec.CommandContext(limit(term.t), "tmux", append([]string{"-u", "-f", "/dev/null", "-S", term.socket}, arguments...)...)
	cmd.Env = term.environment
	out, err := cmd.CombinedOutput()
	if err != nil {
		term.t.Fatalf("tmux %q: %v: %s", arguments, err, out)
	}
	return string(out)
}

// keys presses keys, by their names.
func (term *terminal) keys(names ...string) {
	term.t.Helper()
	term.tmux(append([]string{"send-keys"}, names...)...)
}

// line types a line.
func (term *terminal) line(text string) {
	term.t.Helper()
	term.tmux("send-keys", "-l", text)
	term.keys("Enter")
}

// screen is what a person sees.
func (term *terminal) screen() string { return term.tmux("capture-pane", "-p") }

// state is one of tmux's variables.
func (term *terminal) state(name string) string {
	return strings.TrimSpace(term.tmux("display-message", "-p", "#{"+name+"}"))
}

// await waits until the screen is as wanted, and returns it.
func (term *terminal) await(what string, wanted func(screen string) bool) (screen string) {
	term.t.Helper()
	err := lab.Poll(limit(term.t), func() bool {
		screen = term.screen()
		return wanted(screen)
	})
	if err != nil {
		term.t.Fatalf("waiting for %s; there is:\n%s", what, screen)
	}
	return screen
}

func (term *terminal) awaitText(text string) (screen string) {
	term.t.Helper()
	return term.await(fmt.Sprintf("%q", text), func(screen string) bool { return strings.Contains(screen, text) })
}

// wantRestored asserts that the terminal is the shell's again, as it was before.
func (term *terminal) wantRestored() {
	term.t.Helper()
	if on, cursor := term.state("alternate_on"), term.state("cursor_flag"); on != "0" || cursor != "1" {
		term.t.Errorf("alternate screen %s, cursor %s", on, cursor)
	}
	// In raw mode what is typed would not be echoed, nor would there be lines.
	term.line("stty -a | tr ' ' '\\n' | grep -x -e echo -e icanon -e isig | sort | tr '\\n' ,")
	term.awaitText("echo,icanon,isig,")
}
