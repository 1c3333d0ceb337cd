package systemd_test

import (
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/client"
	"github.com/scache/scache/internal/lab"
)

const socket = "/var/spool/postfix/private/scache-systemd"

// The units as they are shipped, under a real systemd: started by the first client, in the sandbox,
// it takes a TCP connection of another network and gives it back; systemd shows how it does,
// and starts it again when it hangs; what is said is in the journal.
func TestRealSystemd(t *testing.T) {
	m := boot(t, "", map[string]string{
		"etc/default/scache":                               "SCACHE_OPTIONS=-ttl-limit 1h\n",
		"etc/default/scache-exporter":                      "SCACHE_EXPORTER_OPTIONS=-socket " + socket + "\n",
		"etc/systemd/system/scache.service.d/quicker.conf": "[Service]\nWatchdogSec=3s\n",
	})
	m.poll("the socket", func() bool { return m.property("scache.socket", "ActiveState") == "active" })
	if state := m.property("scache.service", "ActiveState"); state != "inactive" {
		t.Errorf("%s before the first client", state)
	}
	passThrough(t, m)
	m.poll("the service", func() bool { return m.property("scache.service", "ActiveState") == "active" })
	wantSandbox(t, m)
	m.poll("the status", func() bool {
		return m.property("scache.service", "StatusText") == "connections cached: 1; clients: 0; look-ups: 1, 100% hit"
	})

	// At a reload another process takes over, and the cached connection with the counters.
	before := m.property("scache.service", "MainPID")
	if out, err := m.run("systemctl", "reload", "scache.service"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.poll("another process", func() bool { return m.property("scache.service", "MainPID") != before })
	m.poll("the status", func() bool {
		return m.property("scache.service", "StatusText") == "connections cached: 1; clients: 0; look-ups: 1, 100% hit"
	})
	if n := m.property("scache.service", "NRestarts"); n != "0" {
		t.Errorf("%s restarts", n)
	}

	// A service that hangs is ended and started again, and the socket is the same.
	if out, err := m.run("systemctl", "kill", "--signal=STOP", "scache.service"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.poll("the watchdog", func() bool { return m.property("scache.service", "NRestarts") == "1" })
	passThrough(t, m)
	wantMetrics(t, m)
	wantJournal(t, m)
	if out, err := m.run("systemctl", "stop", "scache.service"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if result := m.property("scache.service", "Result"); result != "success" {
		t.Errorf("stopped with %s", result)
	}
	if _, err := os.Lstat(m.path(socket)); err != nil {
		t.Error(err)
	}
}

// passThrough saves two ends of TCP connections and takes one out again, which has to be the one
// that was saved first.
func passThrough(t *testing.T, m *machine) {
	t.Helper()
	c, err := client.Dial(t.Context(), m.path(socket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var peers []net.Conn
	for range 2 {
		connection, peer, err := lab.TCPPair()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { peer.Close() })
		peers = append(peers, peer)
		if err := c.SaveEndpoint(t.Context(), time.Hour, "x", "", connection); err != nil {
			t.Fatal(err)
		}
		connection.Close()
	}
	found, err := c.FindEndpoint(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	connection, err := found.Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	const text = "once around"
	if _, err := connection.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	peers[0].SetReadDeadline(time.Now().Add(patience))
	if n, err := peers[0].Read(got); string(got[:n]) != text {
		t.Errorf("read %q, %v", got[:n], err)
	}
}

// wantSandbox looks at what the kernel says of the process.
func wantSandbox(t *testing.T, m *machine) {
	t.Helper()
	pid := m.property("scache.service", "MainPID")
	status, err := os.ReadFile(m.path("/proc/" + pid + "/status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("%q is not in its status:\n%s", want, status)
		}
	}
	for _, namespace := range []string{"net", "mnt", "user", "ipc"} {
		theirs, err := os.Readlink(m.path("/proc/" + pid + "/ns/" + namespace))
		if err != nil {
			t.Fatal(err)
		}
		if of1, err := os.Readlink(m.path("/proc/1/ns/" + namespace)); err != nil || of1 == theirs {
			t.Errorf("its %s namespace is the machine's: %s, %v", namespace, theirs, err)
		}
	}
}

// wantMetrics starts the exporter, and asks it.
func wantMetrics(t *testing.T, m *machine) {
	t.Helper()
	for _, command := range [][]string{{"ip", "link", "set", "lo", "up"}, {"systemctl", "start", "scache-exporter.service"}} {
		if out, err := m.run(command...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	const get = `exec 3<>/dev/tcp/127.0.0.1/10925 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3`
	metrics := ""
	m.poll("metrics", func() (ok bool) {
		var err error
		metrics, err = m.run("bash", "-c", get)
		return err == nil
	})
	if want := `scache_connections{socket="` + socket + `"} 1`; !strings.Contains(metrics, want+"\n") {
		t.Errorf("no line %s in:\n%s", want, metrics)
	}
}

// wantJournal asserts that the priorities have arrived as such.
func wantJournal(t *testing.T, m *machine) {
	t.Helper()
	out, err := m.run("journalctl", "--unit=scache.service", "--output=json", "--identifier=scache")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	type entry struct{ Priority, Message string }
	var started []entry
	for line := range strings.Lines(out) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if strings.HasPrefix(e.Message, "version ") {
			started = append(started, e)
		}
	}
	if len(started) != 2 || started[0].Priority != "6" || !strings.HasSuffix(started[0].Message, "listening on "+socket+", passed as scache") {
		t.Errorf("two starts look like %v", started)
	}
}
