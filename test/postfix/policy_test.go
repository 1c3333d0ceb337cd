package postfix_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
)

// connection_cache_policy_file steers what real delivery agents get.

// governed is an instance with two receivers, x by way of 127.0.0.1 and y by way of
// localhost, and a policy.
type governed struct {
	*lab.Lab
	x, y *lab.Sink
	file string
}

// startGoverned writes the policy, in which %X and %Y are the receivers' ports.
func startGoverned(t *testing.T, policy string, receiver lab.SinkConfig, main ...map[string]string) governed {
	t.Helper()
	if stock {
		t.Skip("Postfix's own has no policy")
	}
	t.Parallel()
	g := governed{x: sink(t, receiver), y: sink(t, receiver), file: filepath.Join(t.TempDir(), "policy")}
	g.write(t, policy)
	params := maps.Clone(forEver)
	for _, m := range main {
		maps.Copy(params, m)
	}
	params["connection_cache_policy_file"] = g.file
	cfg := caching(params, destination{"x.test", "127.0.0.1", g.x.Port()}, destination{"y.test", "localhost", g.y.Port()})
	cfg.Chroot = true
	g.Lab = start(t, cfg)
	return g
}

func (g governed) write(t *testing.T, policy string) {
	t.Helper()
	text := strings.NewReplacer("%X", fmt.Sprint(g.x.Port()), "%Y", fmt.Sprint(g.y.Port())).Replace(policy)
	must(t, os.WriteFile(g.file, []byte(text), 0o600))
}

// deliver sends so many messages to each receiver; user tells them from earlier ones.
func (g governed) deliver(t *testing.T, user string, each int) {
	t.Helper()
	for _, domain := range []string{"x.test", "y.test"} {
		deliver(t, g.Lab, lab.Load{User: user, Domain: domain, Messages: each})
	}
}

// logged counts the lines of the cache that have a text.
func (g governed) logged(text string) int {
	return len(g.LogLines(regexp.MustCompile(`/scache\[\d+\]: ` + text)))
}

// A destination that is not to be cached gets a connection for each message, which is told
// QUIT right after it; the other one is reused.
func TestPolicyNoCaching(t *testing.T) {
	for name, receiver := range map[string]lab.SinkConfig{"plain": {}, "TLS": {TLS: true}} {
		t.Run(name, func(t *testing.T) {
			main := map[string]string{}
			if receiver.TLS {
				main = reusingTLS
			}
			g := startGoverned(t, "destination=127.0.0.1 cache=no handshake=quit\n", receiver, main)
			const each = 100
			g.deliver(t, "", each)
			must(t, lab.Poll(limit(t), func() bool { return g.x.Counts().Open == 0 }))
			if c := g.x.Counts(); c.Sessions != each || c.Quit != each {
				t.Errorf("%d messages not to be cached: %+v", each, c)
			}
			if c := g.y.Counts(); c.Open == 0 || c.Quit > 0 {
				t.Errorf("cached for ever: %+v", c)
			}
			wantReuse(t, each, g.y.Counts().Sessions, 3)
			wantOnce(t, g.x, each)
			wantOnce(t, g.y, each)
			reported(t, g.Lab, "postfix")
			if n := g.logged(`policy .*/policy: rules=1`); n == 0 {
				t.Error("the log has no word of the policy")
			}
			must(t, g.WaitLog(limit(t), regexp.MustCompile(fmt.Sprintf(`closed: .* declined=%d; .*; policy: declined bindings=%d `, each, each))))
			wantNotLogged(t, g.Lab, trouble)
		})
	}
}

// What a host's connections are kept for is up to the policy; the name is that of the host
// that smtp(8) is connected to.
func TestPolicyTimeToLive(t *testing.T) {
	g := startGoverned(t, "host=localhost ttl=1s\n", lab.SinkConfig{})
	const each = 40
	g.deliver(t, "", each)
	must(t, lab.Poll(limit(t), func() bool { return g.y.Counts().Open == 0 }))
	if c := g.x.Counts(); c.Open == 0 {
		t.Errorf("cached for ever: %+v", c)
	}
	reported(t, g.Lab, "postfix")
	must(t, g.WaitLog(limit(t), regexp.MustCompile(`; policy: declined bindings=0 lowered ttl=[1-9]`)))
	wantNotLogged(t, g.Lab, trouble)
}

// How many connections are kept, by address and by port.
func TestPolicyKeep(t *testing.T) {
	g := startGoverned(t, `address=127.0.0.0/8 endpoint=smtp\n*\n%X\n* keep=1`+"\n"+`service=smtp keep=unlimited`+"\n",
		lab.SinkConfig{Greeting: 200 * time.Millisecond}, map[string]string{
			"connection_cache_endpoint_limit": "3",
			"initial_destination_concurrency": "10",
			"smtpd_end_of_data_restrictions":  "check_client_access static:hold",
		})
	const each = 60
	for i, domain := range []string{"x.test", "y.test"} { // one by one, or one may have all delivery agents
		must(t, g.Send(limit(t), lab.Load{Domain: domain, Messages: each}))
		must(t, g.Release(limit(t)))
		must(t, g.WaitDelivered(limit(t), (i+1)*each))
	}
	must(t, lab.Poll(limit(t), func() bool { return g.x.Counts().Open <= 1 }))
	x, y := g.x.Counts(), g.y.Counts()
	t.Logf("%d and %d connections at a time, %d and %d at the end", x.MaxOpen, y.MaxOpen, x.Open, y.Open)
	if x.MaxOpen <= 1 || x.Open != 1 || y.Open <= 3 {
		t.Errorf("%+v, and without a limit %+v", x, y)
	}
	wantNotLogged(t, g.Lab, trouble)
}

// A file that is not right keeps the cache from keeping anything, and the log says where it is wrong;
// mail goes its way, and no delivery agent gives up. With the file put right and a reload all is well.
func TestPolicyRepaired(t *testing.T) {
	g := startGoverned(t, "destination=127.0.0.1 cache=no\n* ttl=soon\n", lab.SinkConfig{}, nil)
	const each = 30
	g.deliver(t, "before", each)
	if n := g.logged(`error: .*/policy, line 2: ttl=soon: want `); n != 1 {
		t.Errorf("file and line are named %d times", n)
	}
	wantNotLogged(t, g.Lab, `fatal: |throttling|disabling connection caching`)
	if x, y := g.x.Counts(), g.y.Counts(); x.Sessions != each || y.Sessions != each {
		t.Errorf("without caching: %+v, %+v", x, y)
	}

	g.write(t, "destination=127.0.0.1 cache=no\n* ttl=1h\n")
	must(t, g.Reload(limit(t)))
	const more = 60
	g.deliver(t, "after", more)
	if n := g.x.Counts().Sessions - each; n != more {
		t.Errorf("%d messages not to be cached took %d connections", more, n)
	}
	wantReuse(t, more, g.y.Counts().Sessions-each, 3)
	wantOnce(t, g.x, each+more)
	wantOnce(t, g.y, each+more)
}
