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
	p, s, predecessor, err := playWith(t, handover.Client{}, -1)
	if err != nil {
		t.Fatal(err)
	}
	return p, s, predecessor
}

// playWith is play with one client, if socket is not -1, and the successor may refuse.
func playWith(t *testing.T, client handover.Client, socket int) (*played, *Server, *Predecessor, error) {
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
		} {
			err = errors.Join(err, p.channel.Send(&r))
		}
		end := handover.End{}
		if socket >= 0 {
			err = errors.Join(err, p.channel.Send(&handover.Record{Client: &client}, socket))
			end.Clients++
		}
		done <- errors.Join(err, p.channel.Send(&handover.Record{End: &end}), p.channel.Flush())
	}()
	predecessor, err := s.TakeOver(ours, "")
	if played := <-done; played != nil {
		t.Fatal(played)
	}
	return p, s, predecessor, err
}

// What a newer version knows of a client, and this one does not, is no reason to guess.
func TestClientInUnknownState(t *testing.T) {
	for want, client := range map[string]handover.Client{
		"a client in state 8, which is not known here":  {State: int(onErrand) + 1},
		"a client in state 7, which is not known here":  {State: int(onErrand)},
		"a client in state -1, which is not known here": {State: -1},
		"a client awaiting descriptor, and":             {State: int(awaitingDescriptor)},
		"a client awaiting acknowledgement, and":        {State: int(awaitingAcknowledgement)},
		"a client ready, and":                           {Prepared: &handover.Connection{}},
	} {
		t.Run(want, func(t *testing.T) { refuseClient(t, client, want) })
	}
}

func refuseClient(t *testing.T, client handover.Client, want string) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	_, s, _, err := playWith(t, client, pipe[1])
	defer unix.Close(s.wake)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v", err)
	}
	if n := len(s.clients); n != 0 {
		t.Errorf("%d clients", n)
	}
	unix.Close(pipe[1]) // the last one, or the end of file would not come
	awaitEnd(t, pipe[0])
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
