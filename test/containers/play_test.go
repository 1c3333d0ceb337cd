package containers_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/scache/scache/internal/lab"
)

// site is Postfix, the cache and two receivers, for a.example and b.example, each
// where it belongs.
type site interface {
	// run runs one of Postfix's commands where Postfix is, and returns what it says.
	run(ctx context.Context, name string, arguments ...string) (string, error)
	// inlet is where smtp-source(1) finds smtpd(8).
	inlet() string
	// check is "scache check" where the cache is, with these arguments more.
	check(ctx context.Context, arguments ...string) error
	// restart ends the cache in good order, and starts another one. One that is
	// killed comes back by itself.
	restart(ctx context.Context) error
	// The numbers of the first process in each place; 0: there is none.
	cachePID() int
	postfixPID() int
	// What has been logged since the beginning, also by processes that are gone.
	mailLog() string
	cacheLog() string
	// finish ends everything, the receivers last, and returns what they have counted.
	finish(ctx context.Context) (seen lab.SMTPSinkCounts, err error)
}

// player plays one piece on a site.
type player struct {
	*testing.T
	site
	ctx  context.Context
	sent int
}

// play is all that is asserted of a site that has just been set up.
func play(t *testing.T, s site) {
	p := &player{T: t, site: s, ctx: limit(t)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("from the mail log:\n%s\nfrom the cache's:\n%s", tail(grep(telling, s.mailLog())), tail(strings.Split(s.cacheLog(), "\n")))
		}
	})
	p.healthy()
	p.apart()
	p.command("postconf", "enable_long_queue_ids=yes") // from the next reload on; short ones may come again
	p.quietly("y")
	p.quietly("n")
	p.wantNoTrouble()
	p.disturbed()
	p.quietly("y")
	p.stopped()
	p.complete()
}

var (
	telling  = regexp.MustCompile(`/master\[|/postfix-script\[|warning: |fatal: |panic: |status=[^s]`)
	trouble  = regexp.MustCompile(`warning: |error: |fatal: |panic: `)
	delivery = regexp.MustCompile(`/smtp\[\d+\]: (\w+): to=<.* status=sent \(250 `)
	inGood   = regexp.MustCompile(`statistics: domain lookup hits=[1-9]`)
)

func grep(pattern *regexp.Regexp, text string) (lines []string) {
	for line := range strings.Lines(text) {
		if pattern.MatchString(line) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func tail(lines []string) string { return strings.Join(lines[max(0, len(lines)-20):], "\n") }

// healthy waits for the cache to say so itself.
func (p *player) healthy() {
	p.Helper()
	err := lab.Poll(p.ctx, func() bool { return p.check(p.ctx) == nil })
	if err != nil {
		p.Fatalf("never healthy: %v", p.check(context.WithoutCancel(p.ctx)))
	}
}

// apart asserts that the cache has neither rights nor network, and another root.
func (p *player) apart() {
	p.Helper()
	cache, postfix := p.cachePID(), p.postfixPID()
	for _, kind := range []string{"net", "mnt", "ipc", "uts"} {
		if namespace(p, cache, kind) == namespace(p, postfix, kind) {
			p.Errorf("Postfix and the cache are in the same namespace: %s", kind)
		}
	}
	if routes := lines(p, cache, "net/route"); len(routes) > 1 { // the first is a heading
		p.Errorf("the cache has a network: %q", routes)
	}
	identity, err := lab.IdentityOf(cache)
	must(p.T, err)
	for _, thread := range identity.UIDs {
		for _, uid := range thread {
			if uid == 0 {
				p.Errorf("the cache runs as root: user ids %v", thread)
			}
		}
	}
	if got := status(p, cache, "CapEff"); strings.Trim(got, "0") != "" {
		p.Errorf("the cache has capabilities: %s", got)
	}
}

func namespace(p *player, pid int, kind string) string {
	p.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	must(p.T, err)
	return link
}

// lines reads a file below /proc/PID.
func lines(p *player, pid int, file string) []string {
	p.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	must(p.T, err)
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// status is one field of /proc/PID/status.
func status(p *player, pid int, field string) string {
	p.Helper()
	for _, line := range lines(p, pid, "status") {
		if value, ok := strings.CutPrefix(line, field+":\t"); ok {
			return value
		}
	}
	p.Fatalf("/proc/%d/status has no %s", pid, field)
	return ""
}

// quietly delivers mail while nothing happens, by smtp(8) with that word in the column
// "chroot" of master.cf.
func (p *player) quietly(chroot string) {
	p.Helper()
	p.command("postconf", "-F", "smtp/unix/chroot="+chroot)
	p.command("postfix", "reload")
	all, before := p.delivered()
	const each = 200
	must(p.T, <-p.send("quiet", each))
	p.arrive()
	now, after := p.delivered()
	messages := now - all
	connections := messages - (after - before) // those from before may still be cached
	p.Logf("chroot %s: %d messages, %d connections", chroot, messages, connections)
	if messages < 4*connections {
		p.Errorf("%d messages took %d connections, want at least 4 messages each", messages, connections)
	}
	p.roots(chroot == "y")
}

// reloaded matches what programs of Postfix say that ask trivial-rewrite(8) while a reload ends it; they ask again.
var reloaded = regexp.MustCompile(`problem talking to service rewrite`)

// troubles are the lines of logs that tell of some.
func troubles(logs string) []string {
	return slices.DeleteFunc(grep(trouble, logs), func(line string) bool {
		return reloaded.MatchString(line) || lab.AboutTheClock.MatchString(line)
	})
}

// wantNoTrouble asserts that nobody has had a word to say so far, nor has postfix check.
func (p *player) wantNoTrouble() {
	p.Helper()
	said := p.command("postfix", "check")
	found := troubles(said + p.mailLog() + p.cacheLog())
	if said != "" || len(found) > 0 {
		p.Errorf("postfix check said %q; in the logs:\n%s", said, tail(found))
	}
}

func (p *player) command(name string, arguments ...string) string {
	p.Helper()
	out, err := p.run(p.ctx, name, arguments...)
	must(p.T, err)
	return out
}

// send has messages sent to each domain, and reports when they are in the queue.
func (p *player) send(user string, each int) <-chan error {
	p.sent += 2 * each
	done := make(chan error, 1)
	go func() {
		for _, domain := range []string{"a.example", "b.example"} {
			_, err := p.run(p.ctx, "smtp-source", "-N", "-m", strconv.Itoa(each), "-s", "5",
				"-f", "load@sender.example", "-t", user+"@"+domain, p.inlet())
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return done
}

// delivered counts the deliveries that receivers have accepted, as Postfix tells, and
// those of them over a connection that had carried others.
func (p *player) delivered() (all, again int) {
	log := p.mailLog()
	return strings.Count(log, " status=sent (250 "), strings.Count(log, " conn_use=")
}

// arrive waits until all that was sent has been delivered.
func (p *player) arrive() {
	p.Helper()
	flush := func(ctx context.Context) error {
		_, err := p.run(ctx, "postfix", "flush")
		return err
	}
	err := lab.AwaitDelivery(p.ctx, func() (int, bool) { all, _ := p.delivered(); return all, all >= p.sent }, flush)
	if err != nil {
		all, _ := p.delivered()
		p.Fatalf("%d of %d messages delivered: %v", all, p.sent, err)
	}
}

// roots asserts that all smtp(8) are in the queue directory, or none is.
func (p *player) roots(jailed bool) {
	p.Helper()
	err := lab.Poll(p.ctx, func() bool {
		agents := 0
		for _, process := range lab.Children(p.postfixPID()) {
			identity, err := lab.IdentityOf(process.PID)
			if process.Program != "smtp" || err != nil {
				continue
			}
			if agents++; (identity.Root != "/") != jailed {
				return false // one from before, on its way out
			}
		}
		return agents > 0
	})
	if err != nil {
		p.Fatalf("no smtp(8), or not all of it has jailed=%v: %v", jailed, err)
	}
}

// disturbed restarts and kills the cache while mail is being delivered. A smtp(8) that
// finds no cache, and none a second later, goes without for the rest of its life; so
// how many connections that takes is the engine's affair.
func (p *player) disturbed() {
	p.Helper()
	const each = 300
	lives := map[int]bool{p.cachePID(): true}
	for i, disturb := range []func() error{p.restarted, p.killed, p.restarted, p.killed} {
		before, _ := p.delivered()
		queued := p.send(fmt.Sprint("disturbed-", i), each)
		must(p.T, lab.Poll(p.ctx, func() bool { now, _ := p.delivered(); return now > before+each/2 }))
		must(p.T, disturb())
		p.healthy()
		lives[p.cachePID()] = true
		must(p.T, <-queued)
		p.arrive()
	}
	if len(lives) != 5 {
		p.Errorf("the cache had %d lives, want one more than the four that were ended", len(lives))
	}
	if orderly := grep(inGood, p.cacheLog()); len(orderly) != 2 {
		p.Errorf("two caches were ended in good order, and %d of them tell what they found", len(orderly))
	}
}

func (p *player) restarted() error { return p.restart(p.ctx) }

func (p *player) killed() error {
	victim := p.cachePID()
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		return err
	}
	return lab.Poll(p.ctx, func() bool { now := p.cachePID(); return now != 0 && now != victim })
}

// stopped asserts that a cache that hangs is found out.
func (p *player) stopped() {
	p.Helper()
	cache := p.cachePID()
	must(p.T, lab.Stop(p.ctx, cache))
	err := p.check(p.ctx, "-timeout", "200ms")
	must(p.T, syscall.Kill(cache, syscall.SIGCONT))
	if err == nil || !strings.Contains(err.Error(), "no answer on /run/scache/socket: context deadline exceeded") {
		p.Errorf("the check of a cache that is stopped: %v", err)
	}
	p.healthy()
}

// complete asserts, by the numbers that Postfix gives messages, that nothing was lost, nothing arrived twice, and that the receivers
// saw what Postfix has told of connections.
func (p *player) complete() {
	p.Helper()
	messages := map[string]bool{}
	for _, line := range grep(delivery, p.mailLog()) {
		messages[delivery.FindStringSubmatch(line)[1]] = true
	}
	all, again := p.delivered()
	if all != p.sent || len(messages) != p.sent {
		p.Errorf("%d deliveries of %d messages, want %d", all, len(messages), p.sent)
	}
	seen, err := p.finish(p.ctx)
	must(p.T, err)
	p.Logf("in all: %d messages, %d connections", seen.Messages, seen.Sessions)
	if seen.Messages != p.sent || seen.Sessions != all-again {
		p.Errorf("the receivers saw %d messages over %d connections, want %d and %d", seen.Messages, seen.Sessions, p.sent, all-again)
	}
}
