package containers_test

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
)

const (
	top     = "../.."               // of the source
	project = "scache-test"         // compose's name for what we make
	scache  = "scache:test"         // the image of the cache
	postfix = "scache-postfix:test" // that of Postfix and of the receivers
)

func TestDocker(t *testing.T) {
	if !*withDocker {
		t.Skip("SKIPPED: containers are run by make test-docker")
	}
	if out, err := command(t.Context(), "docker", "info"); err != nil {
		t.Skipf("\n\n*** SKIPPED: NO DOCKER ENGINE. Nothing was tested in containers. ***\n%s\n", out)
	}
	t.Setenv("SCACHE_IMAGE", scache)
	t.Setenv("POSTFIX_IMAGE", postfix)
	d := newContainers(t)
	t.Run("image", testImage)
	t.Run("hardened", d.testHardened)
	t.Run("beside Postfix", testBeside)
	play(t, d)
}

// containers is the site that deploy/compose.yaml describes.
type containers struct {
	compose []string          // the command
	ids     map[string]string // of containers, by service
	log     buffer            // Postfix's
}

func newContainers(t *testing.T) *containers {
	t.Helper()
	d := &containers{ids: map[string]string{}}
	d.compose = composeCommand(t)
	step := func(words ...string) {
		t.Helper()
		begun := time.Now()
		_, err := command(limit(t), words...) // to make images takes minutes, each
		must(t, err)
		t.Logf("%s: %.1f s", strings.Join(words, " "), time.Since(begun).Seconds())
	}
	step(top + "/scripts/base-images")
	step(d.line("build")...)
	down := d.line("down", "--volumes", "--timeout", "1")
	step(down...) // what a run that was killed has left
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := command(ctx, down...)
		must(t, err)
	})
	step(d.line("up", "--detach", "--no-build")...)
	ctx := limit(t)
	for _, service := range []string{"scache", "postfix", "receiver-a", "receiver-b"} {
		id, err := command(ctx, d.line("ps", "-q", service)...)
		must(t, err)
		d.ids[service] = strings.TrimSpace(id)
	}
	follow := exec.CommandContext(t.Context(), "docker", "logs", "--follow", d.ids["postfix"])
	follow.Stdout, follow.Stderr = &d.log, &d.log
	must(t, follow.Start())
	t.Cleanup(func() { follow.Wait() })
	must(t, lab.Poll(ctx, func() bool { return strings.Contains(d.mailLog(), ": daemon started ") }))
	return d
}

// composeCommand is compose as the engine's plugin, or else Debian's program.
func composeCommand(t *testing.T) []string {
	t.Helper()
	if _, err := command(t.Context(), "docker", "compose", "version"); err == nil {
		return []string{"docker", "compose"}
	}
	_, err := command(t.Context(), top+"/scripts/need", "docker-compose")
	must(t, err)
	return []string{"docker-compose"}
}

// line is one of compose's commands.
func (d *containers) line(words ...string) []string {
	return slices.Concat(d.compose, []string{"-p", project, "-f", top + "/deploy/compose.yaml"}, words)
}

// inspect asks the engine about a container.
func (d *containers) inspect(service, format string) string {
	out, _ := command(context.Background(), "docker", "inspect", "-f", format, d.ids[service])
	return strings.TrimSpace(out)
}

func (d *containers) pid(service string) int {
	pid, _ := strconv.Atoi(d.inspect(service, "{{.State.Pid}}"))
	return pid
}

func (d *containers) cachePID() int   { return d.pid("scache") }
func (d *containers) postfixPID() int { return d.pid("postfix") }
func (d *containers) inlet() string   { return "127.0.0.1:25" }
func (d *containers) mailLog() string { return d.log.String() }

func (d *containers) cacheLog() string {
	out, _ := command(context.Background(), "docker", "logs", d.ids["scache"])
	return out
}

func (d *containers) run(ctx context.Context, name string, arguments ...string) (string, error) {
	return command(ctx, slices.Concat([]string{"docker", "exec", d.ids["postfix"], name}, arguments)...)
}

func (d *containers) check(ctx context.Context, arguments ...string) error {
	_, err := command(ctx, slices.Concat([]string{"docker", "exec", d.ids["scache"], "/scache", "check"}, arguments)...)
	return err
}

func (d *containers) restart(ctx context.Context) error {
	_, err := command(ctx, d.line("restart", "scache")...)
	return err
}

func (d *containers) finish(ctx context.Context) (seen lab.SMTPSinkCounts, err error) {
	// The cache first: when Postfix's container goes its network goes, and what is
	// cached can no longer be closed so that the receivers see it.
	for _, service := range []string{"scache", "postfix"} {
		if _, err := command(ctx, d.line("stop", service)...); err != nil {
			return seen, err
		}
	}
	receivers := []string{"receiver-a", "receiver-b"}
	for _, receiver := range receivers { // a session counts when it is over
		pid := d.pid(receiver)
		if err := lab.Poll(ctx, func() bool { return lab.Sockets(pid) == 1 }); err != nil {
			return seen, err
		}
	}
	// Without a line end what they say comes only at the end.
	if _, err := command(ctx, d.line("stop", "receiver-a", "receiver-b")...); err != nil {
		return seen, err
	}
	for _, receiver := range receivers {
		out, err := command(ctx, "docker", "logs", d.ids[receiver])
		if err != nil {
			return seen, err
		}
		c := lab.ReadSMTPSinkCounts(out)
		seen.Sessions += c.Sessions
		seen.Messages += c.Messages
	}
	return seen, nil
}

// testHardened asserts what an engine adds to plain namespaces, and that the two share
// one directory.
func (d *containers) testHardened(t *testing.T) {
	p := &player{T: t, site: d, ctx: limit(t)}
	if err := lab.Poll(p.ctx, func() bool { return d.inspect("scache", "{{.State.Health.Status}}") == "healthy" }); err != nil {
		t.Errorf("the engine does not take the cache for healthy: %s", d.inspect("scache", "{{json .State.Health}}"))
	}
	cache := d.cachePID()
	for field, want := range map[string]string{"CapBnd": "0000000000000000", "NoNewPrivs": "1"} {
		if got := status(p, cache, field); got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
	for _, line := range lines(p, cache, "mountinfo") {
		fields := strings.Fields(line) // proc(5): the fifth is where, the sixth how
		if where, how := fields[4], fields[5]; where == "/" && !strings.HasPrefix(how, "ro,") {
			t.Errorf("the root file system of the cache is mounted %s", how)
		}
	}
	const mounts = "{{range .Mounts}}{{.Name}}:{{.Destination}} {{end}}"
	ours, theirs := d.inspect("scache", mounts), d.inspect("postfix", mounts)
	const volume = project + "_socket:"
	if ours != volume+"/run/scache" || strings.Count(theirs, volume+"/var/spool/postfix/private/shared") != 1 {
		t.Errorf("the cache has mounted %s, and Postfix %s", ours, theirs)
	}
}

// testImage looks at the image: small, and with the same binary in it that the same
// source and the same Go make elsewhere.
func testImage(t *testing.T) {
	ctx := limit(t)
	out, err := command(ctx, "docker", "image", "inspect", "-f", "{{.Size}} {{.Config.User}}", scache)
	must(t, err)
	size, user, _ := strings.Cut(strings.TrimSpace(out), " ")
	t.Logf("%s has %s bytes", scache, size)
	if number, err := strconv.Atoi(size); err != nil || number > 6e6 {
		t.Errorf("the image has %s bytes", size)
	}
	if user != "65532:65532" {
		t.Errorf("the image's user is %s", user)
	}

	id, err := command(ctx, "docker", "create", scache)
	must(t, err)
	id = strings.TrimSpace(id)
	defer command(context.Background(), "docker", "rm", id)
	dir := t.TempDir()
	inImage := filepath.Join(dir, "in-image")
	_, err = command(ctx, "docker", "cp", id+":/scache", inImage)
	must(t, err)
	theirs, err := buildinfo.ReadFile(inImage)
	must(t, err)
	if theirs.GoVersion != runtime.Version() {
		t.Logf("not compared: the image was made with %s, this test with %s", theirs.GoVersion, runtime.Version())
		return
	}
	version, err := os.ReadFile(top + "/VERSION")
	must(t, err)
	here, err := lab.Build(ctx, dir, "-trimpath", "-ldflags", "-s -w -X main.version="+strings.TrimSpace(string(version)))
	must(t, err)
	if !bytes.Equal(read(t, inImage), read(t, here)) {
		t.Error("the binary in the image is not the one that was made here")
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}
