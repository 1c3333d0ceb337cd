package handover

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

// Patience is how long either side waits for the other to go on. All clients of the
// predecessor wait meanwhile; Postfix's have a limit of 5 s
// (connection_cache_protocol_timeout).
const Patience = time.Second

// The whole hand-over may take so long, however active the other side is: copyTime while the
// predecessor serves, stillTime when it stands still.
const (
	copyTime  = time.Minute
	stillTime = 10 * time.Second
)

// ErrSilent is returned when the other side did nothing for Patience, or not enough for too long.
var ErrSilent = errors.New("no answer in time")

const (
	maxMessage = 1 << 10 // longer than any that is received here
	batchBytes = 32 << 10
	// batchDescriptors is what one message can carry (SCM_MAX_FD in the kernel).
	batchDescriptors = 253
	// crowdedPause is how long to leave the other side to receive what is on its way: the
	// kernel limits a user's descriptors in flight.
	crowdedPause = time.Millisecond
)

// Channel carries records and descriptors over a connected UNIX-domain stream socket. It
// blocks, up to Patience at a time. It must be used by one goroutine, which keeps the socket.
type Channel struct {
	fd  int
	end time.Time // of all patience

	encoder *gob.Encoder
	unsent  bytes.Buffer
	rights  []int // go with unsent; the caller's

	buffered *bufio.Reader
	decoder  *gob.Decoder
	received []int // not given out yet; the channel's
	peer     *unix.Ucred
	control  []byte
}

// NewChannel returns a channel over a socket, which stays the caller's.
func NewChannel(socket int) *Channel {
	c := &Channel{
		fd:      socket,
		end:     time.Now().Add(copyTime),
		control: make([]byte, unix.CmsgSpace(4*batchDescriptors)+unix.CmsgSpace(unix.SizeofUcred)),
	}
	c.encoder = gob.NewEncoder(&c.unsent)
	c.buffered = bufio.NewReaderSize(reader{c}, batchBytes)
	c.decoder = gob.NewDecoder(c.buffered)
	return c
}

// StandStill is called when nobody serves from now on: no time is to be lost.
func (c *Channel) StandStill() { c.end = time.Now().Add(stillTime) }

// Send sends a record with descriptors, which stay the caller's. It may be kept until
// Flush.
func (c *Channel) Send(r *Record, descriptors ...int) error {
	if len(c.rights)+len(descriptors) > batchDescriptors {
		if err := c.Flush(); err != nil {
			return err
		}
	}
	if err := c.keep(r, descriptors...); err != nil {
		return err
	}
	if c.unsent.Len() < batchBytes {
		return nil
	}
	return c.Flush()
}

func (c *Channel) keep(r *Record, descriptors ...int) error {
	r.Descriptors = len(descriptors)
	if err := c.encoder.Encode(r); err != nil {
		return err
	}
	c.rights = append(c.rights, descriptors...)
	return nil
}

// Push is Send without waiting, where Room has reported that there is some. The descriptors have
// gone when it returns, so that the caller may close them; of the record something may be left to
// Room.
func (c *Channel) Push(r *Record, descriptors ...int) error {
	if err := c.keep(r, descriptors...); err != nil {
		return err
	}
	if err := c.send(); err != unix.EAGAIN || len(c.rights) > 0 {
		return err
	}
	return nil
}

// Room sends what was left, without waiting, and reports whether there is room for more.
func (c *Channel) Room() (bool, error) {
	if time.Now().After(c.end) {
		return false, ErrSilent
	}
	switch err := c.send(); err {
	case nil:
	case unix.EAGAIN:
		return false, nil
	default:
		return false, err
	}
	poll := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}
	for {
		// A signal interrupts it, though it does not sleep, if there is no room. Descriptors, which
		// Push cannot keep, would fail then.
		n, err := unix.Poll(poll, 0)
		if err != unix.EINTR {
			return n > 0, os.NewSyscallError("poll", err)
		}
	}
}

// Flush sends what was kept.
func (c *Channel) Flush() error {
	for sent := time.Now(); ; {
		before := c.unsent.Len()
		err := c.send()
		if c.unsent.Len() < before {
			sent = time.Now()
		}
		switch err {
		case nil:
			return nil
		case unix.EAGAIN:
			err = c.wait(unix.POLLOUT)
		case unix.ETOOMANYREFS, unix.ENOBUFS:
			err = nil
			if now := time.Now(); now.Sub(sent) > Patience || now.After(c.end) {
				err = ErrSilent
			}
			time.Sleep(crowdedPause)
		}
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
}

// send sends what was kept, without waiting, until the kernel returns an error.
func (c *Channel) send() error {
	for c.unsent.Len() > 0 {
		var control []byte
		if len(c.rights) > 0 {
			control = unix.UnixRights(c.rights...)
		}
		n, err := unix.SendmsgN(c.fd, c.unsent.Bytes(), control, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		c.unsent.Next(n)
		c.rights = c.rights[:0]
	}
	return nil
}

// Receive returns the next record with its descriptors, which are close-on-exec and the caller's.
// The error is io.EOF if the other side has closed, also in the middle of a record.
func (c *Channel) Receive() (r Record, descriptors []int, err error) {
	err = c.decoder.Decode(&r)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return r, nil, io.EOF
	case err != nil:
		return r, nil, err
	case r.Descriptors < 0 || r.Descriptors > len(c.received):
		return r, nil, fmt.Errorf("%d descriptors announced, %d received", r.Descriptors, len(c.received))
	}
	descriptors = c.received[:r.Descriptors:r.Descriptors]
	c.received = c.received[r.Descriptors:]
	return r, descriptors, nil
}

// SendMessage sends a message of the protocol, before any record.
func (c *Channel) SendMessage(msg []byte) error {
	c.unsent.Write(msg)
	return c.Flush()
}

// ReceiveMessage returns a message of the protocol, before any record.
func (c *Channel) ReceiveMessage() (msg []byte, err error) {
	var framer proto.Framer
	for len(msg) < maxMessage {
		b, err := c.buffered.ReadByte()
		if err != nil {
			return nil, err
		}
		msg = append(msg, b)
		if _, done := framer.Next(msg[len(msg)-1:]); done {
			return msg, nil
		}
	}
	return nil, errors.New("a message that is too long")
}

// SendAnswer sends the successor's answer.
func (c *Channel) SendAnswer(a Answer) error {
	if err := c.encoder.Encode(a); err != nil {
		return err
	}
	return c.Flush()
}

// ReceiveAnswer receives the successor's answer. An error tells why it is not ready.
func (c *Channel) ReceiveAnswer() error {
	var a Answer
	if err := c.decoder.Decode(&a); err != nil {
		return err
	}
	if a.Failure != "" {
		return errors.New(a.Failure)
	}
	return nil
}

// Retract says, if the other side can be told at once, that what it has been told does not hold.
func (c *Channel) Retract() {
	c.end = time.Now()
	_ = errors.Join(c.Send(&Record{}), c.Flush())
}

// Mute makes the other side fail if it sends anything from now on. What it has sent before is received
// still, and then io.EOF: so there is no doubt which of the two it was.
func (c *Channel) Mute() { _ = unix.Shutdown(c.fd, unix.SHUT_RD) }

// Discard closes what was received and not given out.
func (c *Channel) Discard() {
	for _, fd := range c.received {
		unix.Close(fd)
	}
	c.received = nil
}

// AskCredentials has the kernel say who sends, in Peer: the process that really does, which
// need not be the one that made the listening socket.
func (c *Channel) AskCredentials() error {
	return os.NewSyscallError("setsockopt SO_PASSCRED", unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
}

// Peer returns who has sent what was received so far; nil if it is not known.
func (c *Channel) Peer() *unix.Ucred { return c.peer }

// reader is the receiving half, for the decoder.
type reader struct{ *Channel }

// Read implements io.Reader.
func (c reader) Read(buffer []byte) (int, error) {
	for {
		n, controls, flags, _, err := unix.Recvmsg(c.fd, buffer, c.control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EAGAIN:
			if err := c.wait(unix.POLLIN); err != nil {
				return 0, err
			}
			continue
		case err == unix.EINTR:
			continue
		case err == unix.ECONNRESET:
			return 0, io.EOF // it has closed, and not read all
		case err != nil:
			return 0, os.NewSyscallError("recvmsg", err)
		}
		if err := c.take(c.control[:controls]); err != nil {
			return 0, err
		}
		if flags&unix.MSG_CTRUNC != 0 {
			return 0, errors.New("no room for all descriptors: is the limit of open files lower here?")
		}
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
}

// take takes what came beside the bytes.
func (c *Channel) take(control []byte) error {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return err
	}
	for i := range messages {
		switch m := &messages[i]; m.Header.Type {
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(m)
			if err != nil {
				return err
			}
			c.received = append(c.received, fds...)
		case unix.SCM_CREDENTIALS:
			if c.peer, err = unix.ParseUnixCredentials(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// wait waits until the socket is ready.
func (c *Channel) wait(event int16) error {
	for deadline := time.Now().Add(Patience); ; {
		left := min(time.Until(deadline), time.Until(c.end))
		if left <= 0 {
			return ErrSilent
		}
		poll := []unix.PollFd{{Fd: int32(c.fd), Events: event}}
		n, err := unix.Poll(poll, int(left/time.Millisecond)+1)
		if n > 0 || err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
}
