// Package floor builds the floor: a bare epoll server in C that gives fixed replies
// and does per request only what the kernel demands. How far a real server is from
// it is what its store, its protocol and its language cost.
package floor

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed c/floor.c
var source string

// ErrNoCompiler says that there is nothing here to build the floor with.
var ErrNoCompiler = errors.New("no C compiler (cc) found")

// Build compiles the floor into a directory and returns the program's path.
func Build(ctx context.Context, dir string) (path string, err error) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return "", ErrNoCompiler
	}
	path = filepath.Join(dir, "floor")
	cmd := exec.CommandContext(ctx, cc, "-O2", "-std=gnu11", "-Wall", "-Werror", "-x", "c", "-o", path, "-")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir) // a compiler that is killed leaves files
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); ctx.Err() != nil {
		return "", ctx.Err()
	} else if err != nil {
		return "", fmt.Errorf("compile the floor: %w\n%s", err, out)
	}
	return path, nil
}

// Environment makes the floor's replies carry these properties.
func Environment(destination, endpoint string) []string {
	return []string{"FLOOR_DESTINATION=" + destination, "FLOOR_ENDPOINT=" + endpoint}
}
