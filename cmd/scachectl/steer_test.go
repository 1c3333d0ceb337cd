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
	if got, err := a.paths(t.Context()); err != nil || !slices.Equal(got, []string{"/a", "/b"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// What no cache would take is refused before anything is changed.
func TestCheckLimits(t *testing.T) {
	known := []client.Limit{{Name: "a"}, {Name: "b"}}
	for _, test := range []struct {
		change client.Limit
		taken  bool
	}{
		{client.Limit{Name: "b", Value: 1<<31 - 1}, true},
		{client.Limit{Name: "b", Value: 1 << 31}, false},
		{client.Limit{Name: "b", Value: -1}, false},
		{client.Limit{Name: "c", Value: 1}, false},
	} {
		if err := checkLimits([]client.Limit{{Name: "a", Value: 1}, test.change}, known); (err == nil) != test.taken {
			t.Errorf("%v: %v", test.change, err)
		}
	}
}
