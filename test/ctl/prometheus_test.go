package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"github.com/scache/scache/client"
	"github.com/scache/scache/internal/lab"
)

// deployed is a file that is shipped for Prometheus or Grafana.
func deployed(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy", name))
	must(t, err)
	return string(text)
}

// background starts a program that ends with the test.
func background(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
}

// exporter starts "scachectl exporter", and returns the address that it serves at.
func exporter(t *testing.T, sockets ...string) string {
	t.Helper()
	address, _ := startExporter(t, "2s", sockets...)
	return address
}

func startExporter(t *testing.T, timeout string, sockets ...string) (address string, cmd *exec.Cmd) {
	t.Helper()
	arguments := []string{"exporter", "-json", "-listen", "127.0.0.1:0", "-timeout", timeout}
	for _, s := range sockets {
		arguments = append(arguments, "-socket", s)
	}
	cmd = exec.Command(scachectl, arguments...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	background(t, cmd)
	var said struct{ Listen string }
	must(t, json.NewDecoder(out).Decode(&said))
	return said.Listen, cmd
}

func get(t *testing.T, address string) string {
	t.Helper()
	response, err := http.Get(address)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", address, response.Status, body)
	}
	return string(body)
}

// prometheus is a real one that asks an exporter.
type prometheus struct {
	t       *testing.T
	address string
}

// watchWith starts Prometheus with the shipped configuration: only the exporter's
// address and the intervals are others.
func watchWith(t *testing.T, exporter string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	config := deployed(t, "prometheus/prometheus.yml")
	config = strings.ReplaceAll(strings.ReplaceAll(config, "127.0.0.1:10925", exporter), "15s", "250ms")
	for name, text := range map[string]string{"prometheus.yml": config, "rules.yml": deployed(t, "prometheus/rules.yml")} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	port, err := lab.FreePort()
	must(t, err)
	p := &prometheus{t, fmt.Sprintf("127.0.0.1:%d", port)}
	cmd := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+p.address, "--log.level=error")
	cmd.Stderr = os.Stderr
	background(t, cmd)
	must(t, lab.Poll(limit(t), func() bool {
		response, err := http.Get("http://" + p.address + "/-/ready")
		if err == nil {
			response.Body.Close()
		}
		return err == nil && response.StatusCode == http.StatusOK
	}))
	return p
}

// query evaluates an expression, and returns the values that are numbers.
func (p *prometheus) query(expression string) (values []float64) {
	p.t.Helper()
	answer := decode[struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}](p.t, get(p.t, "http://"+p.address+"/api/v1/query?query="+url.QueryEscape(expression)))
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		if value, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(value) {
			values = append(values, value)
		}
	}
	return values
}

// wantData waits until an expression has a value.
func (p *prometheus) wantData(expression string) {
	p.t.Helper()
	if lab.Poll(limit(p.t), func() bool { return len(p.query(expression)) > 0 }) != nil {
		p.t.Errorf("no data: %s", expression)
	}
}

// alert is an alert's state: inactive, pending or firing.
func (p *prometheus) alert(name string) string {
	p.t.Helper()
	for _, rule := range p.rules() {
		if rule.Name == name {
			return rule.State
		}
	}
	p.t.Fatalf("there is no alert %s", name)
	return ""
}

type rule struct{ Name, State, Health, LastError, Query string }

func (p *prometheus) rules() (rules []rule) {
	p.t.Helper()
	answer := decode[struct {
		Data struct {
			Groups []struct{ Rules []rule }
		}
	}](p.t, get(p.t, "http://"+p.address+"/api/v1/rules"))
	for _, group := range answer.Data.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules
}

// work goes on until the test ends: all that a dashboard can show happens now and
// again.
func work(s *server) {
	s.t.Helper()
	c, ctx := s.dial(), s.t.Context()
	conn := dialSelf(s.t)
	done := make(chan struct{})
	s.t.Cleanup(func() { <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			c.SaveDestination(ctx, time.Minute, "a.test", "", "x")
			c.SaveEndpoint(ctx, time.Minute, "x", "", conn)
			for _, find := range []func() (*client.Connection, error){
				func() (*client.Connection, error) { return c.FindDestination(ctx, "a.test") },
				func() (*client.Connection, error) { return c.FindEndpoint(ctx, "x") },
			} {
				if found, err := find(); err == nil {
					found.File.Close()
				}
			}
			c.SaveEndpoint(ctx, time.Minute, "x", "", conn)
			if found, err := c.FindEndpoint(ctx, "x"); err == nil {
				found.File.Close()
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
}

// A real Prometheus with the shipped configuration sees what there is; every panel
// of the dashboard and every rule is about something that it sees.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	s, second := serve(t, "-ttl-limit", "60s"), serve(t)
	work(s)
	p := watchWith(t, exporter(t, s.socket, second.socket))

	for _, panel := range panels(t) {
		for _, target := range panel.Targets {
			expression := target.expression("10s")
			if expression == "" || strings.Contains(expression, "$") {
				t.Errorf("panel %q: expression %q", panel.Title, expression)
			}
			p.wantData(expression)
		}
	}
	must(t, lab.Poll(limit(t), func() bool { return p.rules()[0].Health != "unknown" }))
	for _, rule := range p.rules() {
		if rule.Health != "ok" || rule.LastError != "" {
			t.Errorf("rule %+v", rule)
		}
		for _, metric := range regexp.MustCompile(`scache[a-z_:0-9]+`).FindAllString(rule.Query, -1) {
			p.wantData(metric)
		}
		if rule.State == "firing" {
			t.Errorf("alert %s is raised, and nothing is wrong", rule.Name)
		}
	}

	s.ctl("pause")
	second.stop()
	must(t, lab.Poll(limit(t), func() bool { return p.alert("ScachePaused") == "pending" && p.alert("ScacheDown") == "pending" }))
	if up := p.query(`scache_up{socket="` + second.socket + `"}`); len(up) != 1 || up[0] != 0 {
		t.Errorf("scache_up of the one that is down: %v", up)
	}
}

// What the exporter says is what status says.
func TestExporterAgrees(t *testing.T) {
	t.Parallel()
	s := serve(t, "-ttl-limit", "60s")
	busy(s)
	address := exporter(t, s.socket)
	text := get(t, "http://"+address+"/metrics")
	for _, want := range []string{
		`scache_up{socket="` + s.socket + `"} 1`,
		`scache_lookups_total{kind="destination",result="hit",socket="` + s.socket + `"} 9`,
		`scache_lookups_total{kind="destination",result="miss",socket="` + s.socket + `"} 20`,
		`scache_closed_total{reason="taken",socket="` + s.socket + `"} 9`,
		`scache_connections{socket="` + s.socket + `"} 4`,
		`scache_connections_saved_total{socket="` + s.socket + `"} 13`,
		`scache_found_age_seconds_count{socket="` + s.socket + `"} 9`,
		`scache_build_info{socket="` + s.socket + `",version="development"} 1`,
		"# TYPE scache_request_duration_seconds histogram",
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if health := get(t, "http://"+address+"/healthz"); health != "ok\n" {
		t.Errorf("/healthz says %q", health)
	}
	check := exec.CommandContext(limit(t), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	// A cache that is gone, or stands still, costs a scrape its time limit and no more.
	must(t, lab.Stop(limit(t), s.cmd.Process.Pid))
	if text := get(t, "http://"+address+"/metrics"); !strings.Contains(text, `scache_up{socket="`+s.socket+`"} 0`) {
		t.Errorf("a stopped server is up:\n%s", text)
	}
	must(t, s.cmd.Process.Signal(syscall.SIGCONT))
}

// Few scrapes at a time ask the cache, and those that have begun get their answer when the exporter is told to end.
func TestExporterEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	cache, err := net.Listen("unix", path)
	must(t, err)
	defer cache.Close()
	address, cmd := startExporter(t, "1m", path)
	const scrapes = 4
	answers := make(chan string, scrapes)
	var asked []net.Conn
	for range scrapes {
		go func() {
			response, err := http.Get("http://" + address + "/metrics")
			if err != nil {
				answers <- err.Error()
				return
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			answers <- fmt.Sprint(string(body), err)
		}()
		conn, err := cache.Accept()
		must(t, err)
		asked = append(asked, conn)
	}
	response, err := http.Get("http://" + address + "/metrics")
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one scrape more: %s", response.Status)
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	must(t, lab.Poll(limit(t), func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	}))
	for _, conn := range asked {
		conn.Close()
	}
	for range scrapes {
		if text := <-answers; !strings.Contains(text, `scache_up{socket="`+path+`"} 0`) || !strings.HasSuffix(text, "<nil>") {
			t.Errorf("answered %s", text)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// The rules are sound, and raise alerts when they should.
func TestRulesOfPrometheus(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"promtool check config prometheus.yml", "promtool check rules --lint-fatal rules.yml", "promtool test rules rules_test.yml"} {
		words := strings.Fields(command)
		cmd := exec.CommandContext(limit(t), words[0], words[1:]...)
		cmd.Dir = "../../deploy/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
	tested := deployed(t, "prometheus/rules_test.yml")
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(deployed(t, "prometheus/rules.yml"), -1) {
		if !strings.Contains(tested, m[1]) {
			t.Errorf("alert %s is not tested", m[1])
		}
	}
}

// panel is what is looked at of a dashboard's panel.
type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Targets     []target
	FieldConfig struct{ Defaults struct{ Unit string } }
}

type target struct{ Expr, LegendFormat string }

// expression is what Grafana asks of Prometheus: rates over an interval, of everything.
func (t target) expression(interval string) string {
	return strings.NewReplacer("$__rate_interval", interval, "$instance", ".*", "$socket", ".*").Replace(t.Expr)
}

func panels(t *testing.T) []panel {
	t.Helper()
	return decode[struct{ Panels []panel }](t, deployed(t, "grafana/scache.json")).Panels
}

// The dashboard is what Grafana's own published types say that one is: no field is
// missing, and none unknown. Grafana itself is not to be had in a test.
func TestDashboard(t *testing.T) {
	t.Parallel()
	plugins.RegisterDefaultPlugins()
	//lint:ignore SA1019 the newer form is not what Grafana imports from a file
	var d dashboard.Dashboard
	if err := d.UnmarshalJSONStrict([]byte(deployed(t, "grafana/scache.json"))); err != nil && err.Error() != "" { // none is a typed nil
		t.Error(err)
	}
	must(t, d.Validate())

	// Panels have numbers of their own, and do not cover each other.
	ids, taken := map[int]bool{}, map[[2]int]bool{}
	for _, p := range panels(t) {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %+v", p)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if taken[at] {
					t.Fatalf("panel %q covers another", p.Title)
				}
				taken[at] = true
			}
		}
	}
}
