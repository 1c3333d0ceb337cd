package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/scache/scache/client"
)

// completionLimit is how long a shell waits for the cache when Tab is pressed.
const completionLimit = 2 * time.Second

// askQuietly asks the cache for words; without an answer there are none.
func (a *app) askQuietly(c *cobra.Command, words func(ctx context.Context, cache *client.Client) []string) (found []string) {
	a.timeout = completionLimit
	a.ask(c.Context(), func(ctx context.Context, cache *client.Client) error {
		found = words(ctx, cache)
		return nil
	})
	return found
}

// completeFlush offers what there is to flush, and the labels that are in the cache.
func (a *app) completeFlush(c *cobra.Command, arguments []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(arguments) == 0 {
		return flushable, cobra.ShellCompDirectiveNoFileComp
	}
	if len(arguments) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	labels := map[string]bool{}
	return a.askQuietly(c, func(ctx context.Context, cache *client.Client) (words []string) {
		offer := func(label string) {
			if text := escape(label); !labels[label] && strings.HasPrefix(text, begun) {
				labels[label] = true
				words = append(words, text)
			}
		}
		switch arguments[0] {
		case client.Endpoint:
			for entry, err := range cache.Connections(ctx) {
				if err == nil {
					offer(entry.Endpoint)
				}
			}
		case client.Destination:
			for entry, err := range cache.Bindings(ctx) {
				if err == nil {
					offer(entry.Destination)
				}
			}
		}
		return words
	}), cobra.ShellCompDirectiveNoFileComp
}

// completeLimits offers the limits' names.
func (a *app) completeLimits(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.askQuietly(c, func(ctx context.Context, cache *client.Client) (words []string) {
		limits, _ := cache.Limits(ctx)
		for _, l := range limits {
			words = append(words, strings.TrimPrefix(l.Name, limitPrefix)+"=")
		}
		return words
	}), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}
