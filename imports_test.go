package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/scache/scache"

// imports is who may import whom: one way only, so that each package can be
// understood without those above it.
var imports = map[string][]string{
	"":                  {"client", "policy", "postfix", "server", "store", "systemd"}, // client is for "scache check"
	"server":            {"internal/glob", "internal/handover", "internal/table", "internal/wire", "loop", "policy", "proto", "store", "timerwheel"},
	"store":             {"internal/table", "timerwheel"},
	"loop":              {"internal/table"},
	"policy":            {"internal/glob"},
	"proto":             {},
	"timerwheel":        {},
	"postfix":           {},
	"systemd":           {},
	"client":            {"proto"},
	"internal/glob":     {},
	"internal/handover": {"proto"},
	"internal/wire":     {},
	"internal/table":    {},

	"cmd/scachectl":          {"client", "cmd/scachectl/doctor", "cmd/scachectl/postconf", "cmd/scachectl/socket", "proto"},
	"cmd/scachectl/doctor":   {"client", "cmd/scachectl/postconf", "cmd/scachectl/socket", "policy", "postfix"},
	"cmd/scachectl/postconf": {},
	"cmd/scachectl/socket":   {"client", "cmd/scachectl/postconf"},
}

func goList(t *testing.T, arguments ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, arguments...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

func TestImportsPointOneWay(t *testing.T) {
	for from, allowed := range imports {
		for _, to := range goList(t, "-f", `{{join .Imports "\n"}}`, "./"+from) {
			to, ours := strings.CutPrefix(to, module+"/")
			if ours && !slices.Contains(allowed, to) {
				t.Errorf("%q imports %q", from, to)
			}
		}
	}
}

// The daemon runs as root until it has jailed itself: it links as little as it can.
func TestDaemonLinksOnlySys(t *testing.T) {
	for _, dep := range goList(t, "-deps", "-f", `{{if not .Standard}}{{.ImportPath}}{{end}}`, ".") {
		if !strings.HasPrefix(dep, "golang.org/x/sys/") && dep != module && !strings.HasPrefix(dep, module+"/") {
			t.Errorf("the daemon links %s", dep)
		}
	}
}
