package lab

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build compiles this module's scache into a directory, as it is shipped: without cgo.
func Build(ctx context.Context, dir string) (path string, err error) {
	path = filepath.Join(dir, "scache")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", path, "github.com/scache/scache")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// UnderTest names the scache that tests are about: the one in the environment's
// SCACHE_BINARY, or ours, built into a directory of its own that remove removes.
func UnderTest(ctx context.Context) (path string, remove func(), err error) {
	if path = os.Getenv("SCACHE_BINARY"); path != "" {
		return path, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "scache-test-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	if path, err = Build(ctx, dir); err != nil {
		remove()
		return "", nil, err
	}
	return path, remove, nil
}

// IsGo tells ours from Postfix's own, which is not written in Go.
func IsGo(path string) bool {
	_, err := buildinfo.ReadFile(path)
	return err == nil
}
