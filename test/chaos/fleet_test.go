package chaos

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// config is what a client process is told, in its environment.
type config struct {
	Behaved      bool
	Socket, Sink string
	Seed         uint64
}

const configVariable = "SCACHE_CHAOS_CLIENT"

// clientMain is the main function of a client process.
func clientMain(text string) {
	var c config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(err)
	}
	if c.Behaved {
		(&behaved{config: c}).run()
		return
	}
	misbehave(c)
}

const behavedProcesses, misbehavedProcesses = 5, 3

// A fleet is the client processes: some that behave, some that do not. What dies is
// replaced.
type fleet struct {
	config config
	rnd    *rand.Rand
	sink   *sink
	fault  func(format string, arguments ...any)

	members []*member
	retired int64 // requests of those that are gone

	mu     sync.Mutex // for what follows, and what the members report
	counts counts
	// roomy is when the daemon's descriptor limit was raised last, zero while it is low.
	roomy time.Duration
}

// counts is what is done and reported.
type counts struct {
	hits                   int64
	dead, lost, refused    int
	kills, stops, squeezes int
}

// member is one client process.
type member struct {
	fleet   *fleet
	name    string
	behaved bool
	cmd     *exec.Cmd
	stdin   io.Closer
	stderr  bytes.Buffer
	ended   chan struct{} // all that it reported is read, and it is waited for

	wake        time.Time // it is stopped until then; zero: it runs
	everStopped bool
	killed      bool

	// Under the fleet's lock.
	ops, hits int64
	progress  time.Time // when ops last grew, or could begin to
	done      bool
}

func (f *fleet) start() error {
	for i := range behavedProcesses + misbehavedProcesses {
		m, err := f.launch(i < behavedProcesses)
		if err != nil {
			return err
		}
		f.members = append(f.members, m)
	}
	return nil
}

func (f *fleet) launch(behaved bool) (*member, error) {
	c := f.config
	c.Behaved, c.Seed = behaved, f.rnd.Uint64()
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	m := &member{fleet: f, behaved: behaved, ended: make(chan struct{}), progress: time.Now()}
	m.cmd = exec.Command(os.Args[0])
	m.cmd.Env = append(os.Environ(), configVariable+"="+string(text))
	m.cmd.Stderr = &m.stderr
	// The kernel ends it with the thread that starts it, which is the test's.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if m.stdin, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	m.name = fmt.Sprintf("client process %d", m.cmd.Process.Pid)
	go func() {
		defer close(m.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			m.heard(lines.Text())
		}
		m.cmd.Wait()
		if text := m.stderr.String(); text != "" {
			f.fault("%s: %s", m.name, text)
		}
	}()
	return m, nil
}

// heard takes a line that a behaving process reports.
func (m *member) heard(line string) {
	f := m.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "ops":
		before := m.ops
		fmt.Sscan(rest, &m.ops, &m.hits)
		if m.ops > before {
			m.progress = time.Now()
		}
	case "dead":
		f.counts.dead++
		var serial int
		var asked time.Duration
		fmt.Sscan(rest, &serial, (*int64)(&asked))
		if err := f.sink.complain(serial, asked); err != nil {
			f.fault("%s: %v", m.name, err)
		}
	case "lost":
		f.counts.lost++
		if !m.everStopped {
			f.fault("%s behaved, and was never stopped: %s", m.name, line)
		}
	case "refused":
		f.counts.refused++
		var asked time.Duration
		fmt.Sscan(rest, (*int64)(&asked))
		if f.roomy != 0 && asked > f.roomy+aMoment {
			f.fault("%s: a save was refused, although there was room", m.name)
		}
	case "done":
		m.done = true
	default:
		f.fault("%s: %s", m.name, line)
	}
}

// disturb does something to one of the processes, and sees to those whose time it is.
func (f *fleet) disturb() error {
	i := f.rnd.IntN(len(f.members))
	m := f.members[i]
	switch {
	case f.rnd.IntN(4) > 0 || !m.wake.IsZero():
	case f.rnd.IntN(4) == 0:
		f.counts.kills++
		m.killed = true
		m.cmd.Process.Kill()
	case m.behaved && f.stopped() >= behavedProcesses/2: // some must be there to be hindered
	default:
		f.counts.stops++
		m.stop(f.rnd)
	}
	for i, m := range f.members {
		if !m.wake.IsZero() && time.Now().After(m.wake) {
			m.resume()
		}
		select {
		case <-m.ended:
			f.retire(m)
			var err error
			if f.members[i], err = f.launch(m.behaved); err != nil {
				return err
			}
		default:
		}
	}
	return nil
}

// stop is mostly for a short time; such as do not behave stop longer than
// ipc_timeout, too.
func (m *member) stop(rnd *rand.Rand) {
	m.fleet.mu.Lock()
	m.everStopped = true
	m.fleet.mu.Unlock()
	pause := time.Duration(rnd.IntN(3000)) * time.Millisecond
	if rnd.IntN(8) == 0 {
		pause = time.Duration(rnd.Int64N(int64(ipcTimeout + ipcTimeout/4)))
	}
	m.wake = time.Now().Add(pause)
	m.cmd.Process.Signal(unix.SIGSTOP)
}

func (m *member) resume() {
	m.wake = time.Time{}
	m.fleet.mu.Lock()
	m.progress = time.Now()
	m.fleet.mu.Unlock()
	m.cmd.Process.Signal(unix.SIGCONT)
}

func (f *fleet) stopped() (n int) {
	for _, m := range f.members {
		if m.behaved && !m.wake.IsZero() {
			n++
		}
	}
	return n
}

// squeezed notes that the daemon's descriptor limit is low now, or is not any more.
func (f *fleet) squeezed(low bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.roomy = now(); low {
		f.roomy = 0
		f.counts.squeezes++
	}
}

// retire keeps what a process that is gone has done.
func (f *fleet) retire(m *member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.behaved && !m.done && !m.killed {
		f.fault("%s ended before its time: %v", m.name, m.cmd.ProcessState)
	}
	f.retired += m.ops
	f.counts.hits += m.hits
}

// stalled are the processes that behave, run, and have got nothing done for so long.
func (f *fleet) stalled(limit time.Duration) (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		if m.behaved && m.wake.IsZero() && time.Since(m.progress) > limit {
			names = append(names, m.name)
			m.progress = time.Now() // said once
		}
	}
	return names
}

// ops is how many requests have been answered to processes that behave.
func (f *fleet) ops() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.retired
	for _, m := range f.members {
		n += m.ops
	}
	return n
}

// end lets those that behave end in good order, and kills the others.
func (f *fleet) end() {
	for _, m := range f.members {
		if !m.behaved {
			m.cmd.Process.Kill()
			continue
		}
		if !m.wake.IsZero() {
			m.resume()
		}
		m.stdin.Close()
	}
	late := time.After(2 * patience)
	for _, m := range f.members {
		select {
		case <-m.ended:
		case <-late:
			f.fault("%s does not end", m.name)
			m.cmd.Process.Kill()
			<-m.ended
		}
		f.retire(m)
	}
	f.members = nil
}
