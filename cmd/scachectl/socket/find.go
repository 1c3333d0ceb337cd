package socket

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/scache/scache/cmd/scachectl/postconf"
)

// Standalone is where the documentation puts the socket of "scache serve".
const Standalone = "/run/scache/socket"

// Find returns the path of the socket to talk to: the one of Postfix, which
// postconf(1) tells, if there is one; else that of "scache serve".
func Find(ctx context.Context) string {
	path, err := OfPostfix(ctx, postconf.Instance{})
	if err != nil {
		return Standalone
	}
	// A directory that must not be searched may hold it: connecting will tell.
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(Standalone); err == nil {
			return Standalone
		}
	}
	return path
}

// OfPostfix returns the path of the socket that an instance's delivery agents use.
func OfPostfix(ctx context.Context, instance postconf.Instance) (string, error) {
	values, err := instance.Values(ctx, nil, []string{"queue_directory", "connection_cache_service_name"})
	if err != nil {
		return "", err
	}
	return filepath.Join(values["queue_directory"], "private", values["connection_cache_service_name"]), nil
}
