package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/scache/scache/internal/lab"
)

func (b *bench) buildLister(ctx context.Context) (err error) {
	if b.lister == "" {
		b.progress.say("building scachectl")
		b.lister, err = lab.BuildCtl(ctx, b.dir)
	}
	return err
}

// listAgain lists what a server has cached, again and again, as an operator would do once. end ends
// that, and fails if a list has.
func (b *bench) listAgain(ctx context.Context, s *server) (end func() error) {
	done, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
			}
			command := exec.CommandContext(ctx, b.lister, "list", "-json", "-socket", s.daemon.SocketPath)
			command.Stderr = os.Stderr
			if err := command.Run(); err != nil {
				ended <- fmt.Errorf("%s: scachectl list: %w", s.name, err)
				return
			}
		}
	}()
	return func() error {
		close(done)
		return <-ended
	}
}
