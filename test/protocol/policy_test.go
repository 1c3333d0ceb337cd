package protocol

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/scache/scache/internal/master"
)

// connection_cache_policy_file, as master(8) has it read: by root, before the jail.

// policyFile writes one that only root can read.
func policyFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPolicyFile(t *testing.T) {
	t.Parallel()
	better(t, "stock has no policy")
	path := policyFile(t, `# who gets what
destination=none.test
	cache=no
address=192.0.2.0/24 keep=1 ttl=20s
`)
	for name, cfg := range map[string]master.Config{
		"unprivileged, chroot": {Unprivileged: true, Chroot: true},
		"privileged":           {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.MainCF = "connection_cache_ttl_limit = 1h\nwhere = " + filepath.Dir(path) + "\nconnection_cache_policy_file = $where/policy\n"
			d := startWith(t, cfg)
			c := d.dial()
			p := newPair(t)
			c.bind("100", "smtp\nnone.test\n", "DP", "smtp\n198.51.100.1\n25\n0\n")
			c.save("100", "smtp\n198.51.100.1\n25\n0\n", "EP", p.near)
			c.wantNoEndp("smtp\n198.51.100.1\n25\n0\n")
			c.save("100", "smtp\n198.51.100.1\n25\n0\n", "EP", p.near) // for nobody in particular
			c.wantEndp("smtp\n198.51.100.1\n25\n0\n", "EP", p)
			for _, property := range []string{"1", "2", "3"} {
				c.save("100", "smtp\n192.0.2.1\n25\n0\n", property, p.near)
			}
			c.wantEndp("smtp\n192.0.2.1\n25\n0\n", "3", p)
			c.wantNoEndp("smtp\n192.0.2.1\n25\n0\n")
			d.leave()
			for _, want := range []string{
				"policy " + path + ": rules=2",
				"closed: expired=0 evicted=2 hung-up=0 unsolicited=0 shutdown=0 flushed=0 client-gone=0 declined=1; displaced bindings=0 lowered ttl=0 refused saves=0 lost descriptors=0 delayed clients=0 delayed hand-overs=0 disconnected clients=0; policy: declined bindings=1 lowered ttl=3",
			} {
				if !slices.Contains(d.Texts(), want) {
					t.Errorf("%q is not in the log: %q", want, d.Texts())
				}
			}
		})
	}
}

// A file that is not right keeps the daemon from caching, not from answering; one line says why.
func TestPolicyFileErrors(t *testing.T) {
	t.Parallel()
	better(t, "stock has no policy")
	wrong := policyFile(t, "* ttl=5s\n\n# what follows is wrong\ndestination=a.test\n  ttl=later\n")
	for name, test := range map[string]struct{ file, text string }{
		"a wrong line":     {wrong, wrong + ", line 5: ttl=later: want whole seconds, at least one, such as 30, 30s or 5m"},
		"no file":          {wrong + ".not", "open " + wrong + ".not: no such file or directory"},
		"no file, but one": {"/dev/zero", "/dev/zero: not a regular file"},
		"a table's type":   {"hash:" + wrong, "file CONFIG/main.cf: parameter connection_cache_policy_file: bad value: hash:" + wrong + " (want the absolute path of a file)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startWith(t, master.Config{
				Unprivileged: true, Chroot: true,
				Args: []string{"-o", "connection_cache_policy_file=" + test.file},
			})
			c := d.dial()
			c.save("100", "E", "EP", newPair(t).near)
			c.wantNoEndp("E")
			d.leave()
			want := "error: " + strings.Replace(test.text, "CONFIG", d.ConfigDir, 1) + "; nothing is cached until that is mended and Postfix reloaded"
			if !slices.Contains(d.Texts(), want) {
				t.Errorf("logged %q, not %q", d.Texts(), want)
			}
		})
	}
}
