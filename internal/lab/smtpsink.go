package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// SMTPSink is smtp-sink(1), the receiver that comes with Postfix.
type SMTPSink struct {
	port int
	cmd  *exec.Cmd
	done chan struct{} // its output has ended

	mu     sync.Mutex
	counts SMTPSinkCounts
}

// SMTPSinkCounts is what smtp-sink -c displays. A session counts when it is over.
type SMTPSinkCounts struct{ Sessions, Quit, Messages int }

// NewSMTPSink starts smtp-sink on a loopback port. The words of enter go before the
// command, as those of Config.Enter; they lead to a program that becomes the command.
func NewSMTPSink(ctx context.Context, enter ...string) (*SMTPSink, error) {
	sys, err := inspect()
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	s := &SMTPSink{port: port, done: make(chan struct{})}
	words := append(slices.Clone(enter), filepath.Join(sys.commandDir, "smtp-sink"),
		"-4", "-c", "-u", sys.owner, fmt.Sprintf("127.0.0.1:%d", s.port), "100")
	s.cmd = exec.Command(words[0], words[1:]...)
	s.cmd.Env = []string{} // MAIL_CONFIG is none of its business
	var complaint bytes.Buffer
	s.cmd.Stderr = &complaint
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go s.follow(bufio.NewReader(out))
	if err := Poll(ctx, func() bool { return s.sockets() > 0 || s.ended() }); err != nil || s.ended() {
		s.Close()
		return nil, fmt.Errorf("lab: smtp-sink did not start: %v %s", err, complaint.String())
	}
	return s, nil
}

// follow reads the counters, each display of which ends in a carriage return.
func (s *SMTPSink) follow(out *bufio.Reader) {
	defer close(s.done)
	for {
		line, err := out.ReadString('\r')
		if err != nil {
			return
		}
		c := ReadSMTPSinkCounts(line)
		s.mu.Lock()
		s.counts = c
		s.mu.Unlock()
	}
}

// ReadSMTPSinkCounts reads the last display of smtp-sink -c in its output.
func ReadSMTPSinkCounts(output string) (c SMTPSinkCounts) {
	last := output[max(0, strings.LastIndex(output, "sess=")):]
	fmt.Sscanf(last, "sess=%d quit=%d mesg=%d", &c.Sessions, &c.Quit, &c.Messages)
	return c
}

func (s *SMTPSink) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Port is where the receiver listens, on 127.0.0.1.
func (s *SMTPSink) Port() int { return s.port }

// Counts waits for the present sessions to end, and returns the counters.
func (s *SMTPSink) Counts(ctx context.Context) (SMTPSinkCounts, error) {
	if err := Poll(ctx, func() bool { return s.sockets() <= 1 }); err != nil {
		return SMTPSinkCounts{}, fmt.Errorf("smtp-sink has %d sockets: %w", s.sockets(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts, nil
}

// sockets counts smtp-sink's open sockets; the first is the one that listens.
func (s *SMTPSink) sockets() int { return Sockets(s.cmd.Process.Pid) }

// Close ends the receiver.
func (s *SMTPSink) Close() {
	s.cmd.Process.Kill()
	<-s.done // Wait may not run beside a read
	s.cmd.Wait()
}
