package server

import (
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/handover"
	"github.com/scache/scache/proto"
)

// played is a predecessor of which the test decides when it says what.
type played struct {
	t       *testing.T
	socket  int
	channel *handover.Channel
}

// play hands over to a successor, up to the last word, and returns both.
func play(t *testing.T) (*played, *Server, *Predecessor) {
	t.Helper()
	ours, theirs := socketPair(t)
	s, err := New(Config{Log: &logbook{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1}, Cache{Name: "before"})
	if err != nil {
		t.Fatal(err)
	}
	p := &played{t, theirs, handover.NewChannel(theirs)}
	done := make(chan error, 1)
	go func() {
		err := p.channel.SendMessage([]byte(proto.Announcement))
		_, received := p.channel.ReceiveMessage()
		err = errors.Join(err, received, p.channel.SendMessage(proto.AppendStatus(nil, proto.OK)))
		for _, r := range []handover.Record{
			{Hello: &handover.Hello{Version: handover.Version, Started: monotonic()}},
			{Stopped: &handover.Stopped{StatisticsDue: 1 << 40}},
			{Cache: &handover.Cache{Name: "before"}},
			{End: &handover.End{}},
		} {
			err = errors.Join(err, p.channel.Send(&r))
		}
		done <- errors.Join(err, p.channel.Flush())
	}()
	predecessor, err := s.TakeOver(ours, "")
	if err = errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	return p, s, predecessor
}

// However late the last word is, one of the two serves.
func TestLastWordIsLate(t *testing.T) {
	for _, late := range []time.Duration{0, handover.Patience / 2, handover.Patience, 3 * handover.Patience / 2, 5 * handover.Patience / 2} {
		t.Run(late.String(), func(t *testing.T) {
			t.Parallel()
			p, s, predecessor := play(t)
			said := make(chan error, 1)
			go func() {
				err := p.channel.ReceiveAnswer()
				time.Sleep(late)
				said <- errors.Join(err, p.channel.Send(&handover.Record{Go: &handover.Go{}}), p.channel.Flush())
			}()
			confirmed := predecessor.Confirm()
			if err := <-said; (err == nil) != (confirmed == nil) {
				t.Errorf("the predecessor: %v; the successor: %v", err, confirmed)
			}
			if confirmed == nil {
				s.Stop()
				if err := s.Run(); err != nil {
					t.Error(err)
				}
			}
			unix.Close(s.wake)
		})
	}
}

// One that has given us up goes on, even if it ends a moment later: that is no death.
func TestRetractedHandOver(t *testing.T) {
	p, s, predecessor := play(t)
	defer unix.Close(s.wake)
	p.channel.Retract()
	unix.Shutdown(p.socket, unix.SHUT_RDWR)
	beats := 0
	s.config.Beat = func(Status) { beats++ }
	// Any process that has ended.
	program := exec.Command("true")
	pidfd := -1
	program.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
	if err := program.Run(); err != nil {
		t.Fatal(err)
	}
	unix.Close(predecessor.process)
	predecessor.process = pidfd
	if err := predecessor.Confirm(); err == nil || !strings.Contains(err.Error(), "did not say go") {
		t.Errorf("%v", err)
	}
	if beats > 0 { // the service does not stop: another process goes on
		t.Errorf("%d beats of one that has never served", beats)
	}
}
