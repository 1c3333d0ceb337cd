package main

import (
	"errors"
	"slices"
	"testing"

	"github.com/scache/scache/client"
)

func TestParseLimits(t *testing.T) {
	got, err := parseLimits([]string{"ttl_limit=1m30s", "connection_cache_size_limit=7"})
	want := []client.Limit{{Name: "connection_cache_ttl_limit", Value: 90}, {Name: "connection_cache_size_limit", Value: 7}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, wrong := range []string{"ttl_limit=1999ms", "size_limit=1m", "size_limit", "size_limit=x"} {
		if got, err := parseLimits([]string{wrong}); !errors.Is(err, errUsage) {
			t.Errorf("%s: %v, %v", wrong, got, err)
		}
	}
}

// A socket that is named twice is one.
func TestPathsAreDistinct(t *testing.T) {
	a := app{sockets: []string{"/b", "/a", "/b"}}
	if got := a.paths(t.Context()); !slices.Equal(got, []string{"/a", "/b"}) {
		t.Errorf("%q", got)
	}
}
