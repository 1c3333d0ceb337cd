package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// exposure is what `systemd-analyze security` says of the service, times ten. What is left: it makes AF_UNIX
// sockets, for notifications; ProtectClock= itself allows to read the clock; and it
// sees the root directory, because a reload takes the program that is there then.
const exposure = "2"

// units copies the units as they are shipped, but for the place of the program.
func units(t *testing.T) (service, socket string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"scache.service", "scache.socket"} {
		text, err := os.ReadFile(filepath.Join("../../deploy/systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		here := strings.Replace(string(text), "ExecStart=/usr/sbin/scache ", "ExecStart="+binary+" ", 1)
		if (name == "scache.service") == (here == string(text)) {
			t.Fatalf("the program's place in %s", name)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(here), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "scache.service"), filepath.Join(dir, "scache.socket")
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
	service, socket := units(t)
	// Its manual page is not installed here.
	if out := analyze(t, "verify", "--man=no", service, socket); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
}

func TestUnitIsHardened(t *testing.T) {
	needAnalyze(t, "--threshold")
	service, _ := units(t)
	if out := analyze(t, "security", "--offline=true", "--threshold="+exposure, service); t.Failed() {
		t.Errorf("exposed by more than 0.%s:\n%s", exposure, out)
	}
}
