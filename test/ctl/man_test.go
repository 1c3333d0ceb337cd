package ctl

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The manual page is sound, and has every command and every flag.
func TestManualPage(t *testing.T) {
	t.Parallel()
	const page = "../../man/scachectl.8"
	if out, err := exec.CommandContext(limit(t), "mandoc", "-T", "lint", "-W", "warning", page).CombinedOutput(); err != nil {
		t.Errorf("mandoc: %v\n%s", err, out)
	}
	text, err := os.ReadFile(page)
	must(t, err)
	commands := regexp.MustCompile(`(?m)^  ([a-z]+) +[A-Z]`).FindAllStringSubmatch(run(t, "help").stdout, -1)
	if len(commands) < 10 {
		t.Errorf("help lists %v", commands)
	}
	for _, c := range commands {
		if !strings.Contains(string(text), ".It Cm "+c[1]) {
			t.Errorf("no command %s", c[1])
		}
		if c[1] == "completion" {
			continue // its flags are the library's
		}
		for _, f := range regexp.MustCompile(`--([a-z]+)`).FindAllStringSubmatch(run(t, "help", c[1]).stdout, -1) {
			if !strings.Contains(string(text), "Fl "+f[1]) {
				t.Errorf("no flag %s of %s", f[1], c[1])
			}
		}
	}
}
