package doctor

import (
	"context"
	"debug/buildinfo"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Binary is the program that master(8) runs as the cache.
type Binary struct {
	Path    string
	Missing bool   // there is no executable file
	Ours    bool   // it is this project's; else Postfix's own
	Version string // of ours
}

// inspect tells ours by what the Go linker has left in it, and runs no other.
func inspect(ctx context.Context, path string) Binary {
	b := Binary{Path: path}
	if found, err := os.Stat(path); err != nil || !found.Mode().IsRegular() || found.Mode()&0o111 == 0 {
		b.Missing = true
		return b
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil || info.Main.Path != "github.com/scache/scache" {
		return b
	}
	b.Ours = true
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, path, "-version").Output(); err == nil {
		_, b.Version, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
	}
	return b
}
