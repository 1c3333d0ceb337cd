// Package socket finds the cache's socket and connects to it, and says in words
// that help why it could not.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/scache/scache/client"
)

// Kind is why there is no talking to a cache.
type Kind int

const (
	Missing   Kind = iota + 1 // there is nothing at the path
	NoSocket                  // there is something else
	Refused                   // a socket that nobody listens on
	Forbidden                 // the rights are lacking
	Silent                    // no answer in time
	Ended                     // the connection was closed
	Foreign                   // somebody else's socket
	Denied                    // a cache that does not obey this user
	Stock                     // a cache that has no admin requests
	Failed                    // something else
)

// Error is a failure to connect to the cache at Path.
type Error struct {
	Kind Kind
	Path string
	err  error
}

func (e *Error) Unwrap() error { return e.err }

// Error says what is wrong, and what to try.
func (e *Error) Error() string {
	switch e.Kind {
	case Missing:
		return fmt.Sprintf("no socket at %s: is the cache running there? Name another with --socket or SCACHE_SOCKET; \"scachectl doctor\" looks at Postfix's", e.Path)
	case NoSocket:
		return e.Path + " is not a socket"
	case Refused:
		return fmt.Sprintf("nobody listens on %s: whoever made it has ended (\"postfix status\" tells about Postfix)", e.Path)
	case Forbidden:
		return fmt.Sprintf("not allowed to connect to %s: a cache of Postfix can be asked by root and by mail_owner (usually postfix) only; try sudo", e.Path)
	case Silent:
		return e.Path + " does not answer in time: the server could not start (the mail log tells), is stopped, hangs, or is out of open files"
	case Ended:
		return fmt.Sprintf("%s: the server closed the connection: it has ended, or it is no connection cache", e.Path)
	case Foreign:
		return fmt.Sprintf("%s is not the socket of a connection cache", e.Path)
	case Denied:
		return fmt.Sprintf("not allowed: the cache at %s obeys root and the user that it runs as only; try sudo", e.Path)
	case Stock:
		return fmt.Sprintf("at %s is Postfix's own scache, or an older one of ours, which cannot be asked; \"scachectl doctor\" works with it", e.Path)
	}
	return fmt.Sprintf("%s: %v", e.Path, e.err)
}

// Dial connects to the cache that listens at path. Any error is an *Error. The
// context limits Dial only.
func Dial(ctx context.Context, path string) (*client.Client, error) {
	c, err := client.Dial(ctx, path)
	if err != nil {
		return nil, Explain(path, err)
	}
	return c, nil
}

// Explain says what an error of the client at path means.
func Explain(path string, err error) *Error {
	return &Error{kind(path, err), path, err}
}

func kind(path string, err error) Kind {
	switch {
	case errors.Is(err, client.ErrNotAllowed):
		return Denied
	case errors.Is(err, client.ErrStock):
		return Stock
	case errors.Is(err, fs.ErrNotExist):
		return Missing
	case errors.Is(err, fs.ErrPermission):
		return Forbidden
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return Silent
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Ended
	case errors.Is(err, syscall.ECONNREFUSED):
		if found, err := os.Stat(path); err == nil && found.Mode().Type() != fs.ModeSocket {
			return NoSocket
		}
		return Refused
	case errors.Is(err, syscall.EPROTOTYPE), errors.Is(err, client.ErrNoCache):
		return Foreign
	}
	return Failed
}
