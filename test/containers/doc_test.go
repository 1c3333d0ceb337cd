// Package containers_test runs Postfix and the cache apart from each other: with the
// directory of the cache's socket in common, and nothing else. The connections come
// and go across the wall between them.
//
// What is asserted is in play_test.go, and is so in two ways: in containers of a
// real Docker engine, as deploy/compose.yaml describes them (make test-docker, which is
// go test ./test/containers -docker); and, everywhere, in namespaces of this kernel,
// which is what containers are made of.
package containers_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os/exec"
	"sync"
	"testing"
	"time"
)

var withDocker = flag.Bool("docker", false, "run the containers of deploy/compose.yaml, too")

// patience bounds a whole test. It is far more than any needs: what is
// asserted is never how long something took.
const patience = 5 * time.Minute

func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// must ends the test at the first step that fails.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// command runs a program, and returns what it says.
func command(ctx context.Context, words ...string) (string, error) {
	out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%q: %w: %s", words, err, out)
	}
	return string(out), nil
}

// buffer holds what processes say, while others read it.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
