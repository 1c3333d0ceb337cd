package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

// do runs one exchange within the bounds of a context. Until it has come to its end both are out of
// step: so nothing else can be asked for in the midst of a list.
func (c *Client) do(ctx context.Context, exchange func() error) (err error) {
	if c.broken {
		return ErrBroken
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	deadline, _ := ctx.Deadline() // none is the zero time, and so for the socket
	if err := c.conn.SetDeadline(deadline); err != nil {
		return err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.conn.SetDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	defer func() { // also if the loop over a list panics
		if !stop() {
			<-interrupted // so that it does not hit the next exchange
		}
	}()
	c.broken = true
	err = exchange()
	switch {
	case err == nil || answered(err):
		c.broken = false
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil:
		err = context.DeadlineExceeded // the socket's can be over an instant before the context's
	case ctx.Err() != nil && err != errStopped: // which is the caller's own doing
		err = context.Cause(ctx)
	}
	return err
}

// answered reports whether an error is the server's answer, which leaves both in step.
func answered(err error) bool {
	var refusal *RefusalError
	return err == ErrNotFound || err == ErrRefused || err == ErrStock || errors.As(err, &refusal)
}

func (c *Client) send(msg string) error {
	_, err := c.conn.Write([]byte(msg))
	return err
}

// exchange sends a request and receives the reply.
func (c *Client) exchange(request []byte) (reply []byte, err error) {
	if _, err := c.conn.Write(request); err != nil {
		return nil, err
	}
	return c.receive()
}

// receive returns one message, a view until the next call. It does not read past
// its end: after each message it is the client's turn.
func (c *Client) receive() ([]byte, error) {
	var framer proto.Framer
	c.buffer = c.buffer[:0]
	for {
		start := len(c.buffer)
		c.buffer = slices.Grow(c.buffer, max(512, start))
		n, err := c.conn.Read(c.buffer[start:cap(c.buffer)])
		c.buffer = c.buffer[:start+n]
		if err != nil {
			return nil, fmt.Errorf("scache: no reply: %w", err)
		}
		end, done := framer.Next(c.buffer[start:])
		switch {
		case done && start+end < len(c.buffer):
			return nil, fmt.Errorf("scache: unexpected bytes behind a reply: %q", c.buffer[start+end:])
		case done:
			return c.buffer, nil
		}
	}
}

// sendDescriptor sends one byte that carries the descriptor of connection.
func (c *Client) sendDescriptor(connection syscall.RawConn) error {
	var err error
	// Within Control, so that the descriptor cannot be closed meanwhile.
	if e := connection.Control(func(fd uintptr) {
		_, _, err = c.conn.WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil)
	}); e != nil {
		return e
	}
	return err
}

// receiveDescriptor receives one byte and the descriptor that it carries.
func (c *Client) receiveDescriptor() (*os.File, error) {
	var nul [1]byte
	control := make([]byte, unix.CmsgLen(4)) // the kernel closes what would be one too many
	n, length, _, _, err := c.conn.ReadMsgUnix(nul[:], control)
	if err != nil {
		return nil, fmt.Errorf("scache: no descriptor: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:length])
	if err != nil || n != 1 || len(messages) != 1 {
		return nil, fmt.Errorf("scache: no descriptor on a message of %d bytes", n)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return nil, errors.New("scache: the server's message carries no descriptor")
	}
	return os.NewFile(uintptr(fds[0]), "cached connection"), nil
}
