package lab

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Build compiles this module's scache into a directory, as it is shipped: without
// cgo. The flags are further ones of go build; -race is the one that needs cgo.
func Build(ctx context.Context, dir string, flags ...string) (path string, err error) {
	return build(ctx, filepath.Join(dir, "scache"), "github.com/scache/scache", flags...)
}

// BuildCtl compiles this module's scachectl into a directory.
func BuildCtl(ctx context.Context, dir string) (path string, err error) {
	return build(ctx, filepath.Join(dir, "scachectl"), "github.com/scache/scache/cmd/scachectl")
}

func build(ctx context.Context, path, program string, flags ...string) (string, error) {
	args := append([]string{"build", "-buildvcs=false", "-o", path}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, program)...)
	cgo := "CGO_ENABLED=0"
	if slices.Contains(flags, "-race") {
		cgo = "CGO_ENABLED=1"
	}
	cmd.Env = append(os.Environ(), cgo, "GOTMPDIR="+filepath.Dir(path)) // go build that is killed leaves files
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// UnderTest names the scache that tests are about: the one in the environment's
// SCACHE_BINARY, or ours, built with these flags into a directory of its own that
// remove removes.
func UnderTest(ctx context.Context, flags ...string) (path string, remove func(), err error) {
	if path = os.Getenv("SCACHE_BINARY"); path != "" {
		return path, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "scache-test-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	if path, err = Build(ctx, dir, flags...); err != nil {
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
