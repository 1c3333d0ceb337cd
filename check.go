package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/scache/scache/client"
)

// imageSocket is where the cache listens in the container image, see Dockerfile.
const imageSocket = "/run/scache/socket"

// checkedName is what a check looks up; no agent's endpoint is called so.
const checkedName = "scache check"

// check is "scache check": the health check of a container that has neither shell
// nor tools. One line says whether a cache answers. It returns the exit status: 0
// if it does, 1 if not, 2 for a wrong command line.
func check(arguments []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("scache check", flag.ContinueOnError)
	flags.SetOutput(stderr)
	socket := flags.String("socket", imageSocket, "`path` of the cache's UNIX-domain socket")
	var timeout time.Duration
	durationVar(flags, &timeout, "timeout", 2*time.Second, "the `duration` that it may take in all")
	switch err := flags.Parse(arguments); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil: // has been told
		return 2
	case flags.NArg() > 0:
		fmt.Fprintln(stderr, "scache check: unexpected argument:", flags.Arg(0))
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := lookUp(ctx, *socket); err != nil {
		fmt.Fprintf(stderr, "scache check: no answer on %s: %v\n", *socket, err)
		return 1
	}
	fmt.Fprintln(stdout, "scache check: the cache answers on", *socket)
	return 0
}

// lookUp wants the announcement, and one look-up answered: it shows that the
// server's loop turns. The cache counts it as a look-up in vain.
func lookUp(ctx context.Context, socket string) error {
	cache, err := client.Dial(ctx, socket)
	if err != nil {
		return err
	}
	defer cache.Close()
	found, err := cache.FindEndpoint(ctx, checkedName)
	switch {
	case errors.Is(err, client.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return found.File.Close()
}
