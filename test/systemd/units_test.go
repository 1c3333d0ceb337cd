package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shipped are the units.
var shipped = []string{"scache.service", "scache.socket", "scache-exporter.service"}

// exposures are what `systemd-analyze security` says of the services, times ten. What is left of scache: it
// makes AF_UNIX sockets, for notifications; ProtectClock= itself allows to read the clock; and it
// sees the root directory, because a reload takes the program that is there then. The exporter is root
// besides, and has the network of the machine.
var exposures = map[string]string{"scache.service": "2", "scache-exporter.service": "18"}

// units copies the units as they are shipped, but for the place of the programs.
func units(t *testing.T) (files []string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range shipped {
		text, err := os.ReadFile(filepath.Join("../../deploy/systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		here := strings.NewReplacer("ExecStart=/usr/sbin/scache ", "ExecStart="+binary+" ", "ExecStart=/usr/sbin/scachectl ", "ExecStart="+scachectl+" ").Replace(string(text))
		if strings.HasSuffix(name, ".service") == (here == string(text)) {
			t.Fatalf("the program's place in %s", name)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(here), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

func analyze(t *testing.T, arguments ...string) string {
	t.Helper()
	cmd := exec.Command("systemd-analyze", arguments...)
	cmd.Env = append(os.Environ(), "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=cat", "LANG=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze %s: %v", strings.Join(arguments, " "), err)
	}
	return string(out)
}

func needAnalyze(t *testing.T, what string) {
	t.Helper()
	help, err := exec.Command("systemd-analyze", "--help").Output()
	if err != nil {
		skip(t, "no systemd-analyze: "+err.Error())
	}
	if !strings.Contains(string(help), what) {
		skip(t, "this systemd-analyze has no "+what)
	}
}

func TestUnitsAreClean(t *testing.T) {
	needAnalyze(t, "verify")
	// The manual pages are not installed here.
	if out := analyze(t, append([]string{"verify", "--man=no"}, units(t)...)...); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
}

func TestUnitsAreHardened(t *testing.T) {
	needAnalyze(t, "--threshold")
	for _, file := range units(t) {
		exposure, service := exposures[filepath.Base(file)]
		if !service {
			continue
		}
		if out := analyze(t, "security", "--offline=true", "--threshold="+exposure, file); t.Failed() {
			t.Errorf("exposed by more than %s tenths:\n%s", exposure, out)
		}
	}
}
