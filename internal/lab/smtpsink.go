package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// SMTPSink is smtp-sink(1), the receiver that comes with Postfix.
type SMTPSink struct {
	port   int
	cmd    *exec.Cmd
	output *os.File      // a file and no pipe: what was written is there to be read
	done   chan struct{} // the process has ended
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
	output, err := os.CreateTemp("", "smtp-sink")
	if err != nil {
		return nil, err
	}
	os.Remove(output.Name())
	s := &SMTPSink{port: port, output: output, done: make(chan struct{})}
	words := append(slices.Clone(enter), filepath.Join(sys.commandDir, "smtp-sink"),
		"-4", "-c", "-u", sys.owner, fmt.Sprintf("127.0.0.1:%d", s.port), "100")
	s.cmd = exec.Command(words[0], words[1:]...)
	s.cmd.Env = []string{} // MAIL_CONFIG is none of its business
	var complaint bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = output, &complaint
	if err := s.cmd.Start(); err != nil {
		output.Close()
		return nil, err
	}
	go func() {
		defer close(s.done)
		s.cmd.Wait()
	}()
	if err := Poll(ctx, func() bool { return s.sockets() > 0 || s.ended() }); err != nil || s.ended() {
		s.Close()
		return nil, fmt.Errorf("lab: smtp-sink did not start: %v %s", err, complaint.String())
	}
	return s, nil
}

// ReadSMTPSinkCounts reads the last display of smtp-sink -c in its output.
func ReadSMTPSinkCounts(output string) (c SMTPSinkCounts) {
	last := output[max(0, strings.LastIndex(output, "sess=")):]
	fmt.Sscanf(last, "sess=%d quit=%d mesg=%d", &c.Sessions, &c.Quit, &c.Messages)
	return c
}

// Port is where the receiver listens, on 127.0.0.1.
func (s *SMTPSink) Port() int { return s.port }

// Counts waits for the present sessions to end, and returns the counters:
// smtp-sink displays them before it closes a session's socket.
func (s *SMTPSink) Counts(ctx context.Context) (SMTPSinkCounts, error) {
	if err := Poll(ctx, func() bool { return s.sockets() <= 1 }); err != nil {
		return SMTPSinkCounts{}, fmt.Errorf("smtp-sink has %d sockets: %w", s.sockets(), err)
	}
	text, err := io.ReadAll(io.NewSectionReader(s.output, 0, math.MaxInt64))
	return ReadSMTPSinkCounts(string(text)), err
}

func (s *SMTPSink) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// sockets counts smtp-sink's open sockets; the first is the one that listens.
func (s *SMTPSink) sockets() int { return Sockets(s.cmd.Process.Pid) }

// Close ends the receiver.
func (s *SMTPSink) Close() {
	s.cmd.Process.Kill()
	<-s.done
	s.output.Close()
}
