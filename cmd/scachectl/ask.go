package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/scache/scache/client"
	"github.com/scache/scache/cmd/scachectl/socket"
)

// paths are the sockets of the caches to talk to.
func (a *app) paths(ctx context.Context) ([]string, error) {
	if slices.Contains(a.sockets, "") {
		return nil, fmt.Errorf("--socket: empty: %w", errUsage)
	}
	if len(a.sockets) > 0 {
		return slices.Compact(slices.Sorted(slices.Values(a.sockets))), nil
	}
	if path := os.Getenv("SCACHE_SOCKET"); path != "" {
		return []string{path}, nil
	}
	return []string{socket.Find(ctx)}, nil
}

// path is the one socket of a command that asks one cache.
func (a *app) path(ctx context.Context) (string, error) {
	paths, err := a.paths(ctx)
	if err != nil {
		return "", err
	}
	if len(paths) > 1 {
		return "", fmt.Errorf("one --socket only: %w", errUsage)
	}
	return paths[0], nil
}

// ask has a conversation with the cache, in the time that the command line allows.
func (a *app) ask(ctx context.Context, talk func(ctx context.Context, c *client.Client) error) error {
	path, err := a.path(ctx)
	if err != nil {
		return err
	}
	return a.askAt(ctx, path, talk)
}

func (a *app) askAt(ctx context.Context, path string, talk func(ctx context.Context, c *client.Client) error) error {
	return a.listenTo(ctx, path, func(ctx context.Context, c *client.Client, _ func()) error { return talk(ctx, c) })
}

// listenTo is ask for what has a long answer: the time begins anew whenever heard is called.
func (a *app) listenTo(ctx context.Context, path string, talk func(ctx context.Context, c *client.Client, heard func()) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(a.timeout, func() { cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	c, err := socket.Dial(ctx, path)
	if err != nil {
		return err
	}
	defer c.Close()
	err = talk(ctx, c, func() { timer.Reset(a.timeout) })
	var refusal *client.RefusalError
	if err == nil || errors.As(err, &refusal) && !refusal.NotAllowed {
		return err
	}
	return socket.Explain(path, err)
}

// escape makes a label printable, and unescape undoes it: what list prints is what
// flush takes. Postfix's labels are lines, whose ends may also stand for themselves, as in what
// other programs make of JSON.
func escape(label string) string {
	quoted := strconv.Quote(label)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func unescape(text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", fmt.Errorf("%s: bytes that are no text are written as list prints them, such as \\xff: %w", escape(text), errUsage)
	}
	label, err := strconv.Unquote(`"` + strings.NewReplacer(`"`, `\"`, "\n", `\n`).Replace(text) + `"`)
	if err != nil {
		return "", fmt.Errorf("%s: a backslash begins an escape, such as \\n for the end of a line and \\\\ for itself: %w", text, errUsage)
	}
	return label, nil
}
