package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/scache/scache/client"
	"github.com/scache/scache/cmd/scachectl/socket"
)

// Socket is how the cache's socket answers.
type Socket struct {
	Path    string
	Trouble *socket.Error // nil: it is a cache
	Idle    bool          // Postfix does not run, so that nobody could answer
	Limits  Settings      // in force; nil: the cache cannot be asked, or not by this user
	Paused  bool
}

// answerLimit is how long delivery agents wait for the cache, by default
// (connection_cache_protocol_timeout).
const answerLimit = 5 * time.Second

func probe(ctx context.Context, path string) Socket {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	s := Socket{Path: path}
	c, err := socket.Dial(ctx, path)
	if err == nil {
		defer c.Close()
		if s.Limits = limitsInForce(ctx, c); s.Limits != nil {
			statistics, err := c.Statistics(ctx)
			s.Paused = err == nil && statistics.Values["paused"] != 0
		}
		return s
	}
	errors.As(err, &s.Trouble)
	// master(8) listens on all sockets or on none: without one in public it has
	// never run, and what it leaves behind when it ends refuses all.
	_, err = os.Lstat(filepath.Join(filepath.Dir(path), "../public/pickup"))
	s.Idle = s.Trouble.Kind == socket.Refused || s.Trouble.Kind == socket.Missing && errors.Is(err, os.ErrNotExist)
	return s
}

// limitsInForce asks for the limits, as main.cf would have them.
func limitsInForce(ctx context.Context, c *client.Client) Settings {
	limits, err := c.Limits(ctx)
	if err != nil {
		return nil
	}
	settings := Settings{}
	for _, l := range limits {
		value := strconv.FormatInt(l.Value, 10)
		if l.IsTime() {
			value += "s"
		}
		settings[l.Name] = value
	}
	return settings
}

// paused: for what, only who paused it knows, or the log.
func paused(s *System, yield func(Finding)) {
	s.eachCache(func(c *Cache) {
		if c.Socket.Paused {
			yield(Finding{"paused", Warning, []string{c.Name}, "the cache is paused",
				"It finds and keeps nothing: it was told to (scachectl pause), or has begun so for a mistake in its parameters or rules. A reload ends it, if that is mended.",
				[]string{reload(s)}})
		}
	})
}

func socketTrouble(s *System, yield func(Finding)) {
	s.eachCache(func(c *Cache) {
		trouble := c.Socket.Trouble
		if trouble == nil {
			return
		}
		f := Finding{Rule: "socket", Severity: Error, Services: []string{c.Name}, Text: trouble.Error()}
		switch {
		case c.Socket.Idle:
			f.Severity = Note
			f.Text = fmt.Sprintf("nobody listens on %s", c.Socket.Path)
			f.Why = "Postfix does not run."
		case trouble.Kind == socket.Forbidden:
			f.Severity = Note
			f.Text = fmt.Sprintf("%s was not tried: only root and mail_owner may", c.Socket.Path)
			f.Why = "Whether the cache answers is for them to see."
		case trouble.Kind == socket.Missing:
			f.Text = fmt.Sprintf("there is no socket at %s", c.Socket.Path)
			f.Why = "master(8) has not read this line of master.cf yet."
			f.Fix = []string{reload(s)}
		default:
			f.Why = "Delivery agents have no use of the cache. The mail log says why it does not answer. If it could not start, " +
				"master(8) tries again after a minute, also if the reason is gone; if it hangs, a new process may answer."
			f.Fix = []string{reload(s)}
		}
		yield(f)
	})
}

func reload(s *System) string {
	if s.Instance.Directory == "" {
		return shell("postfix", "reload")
	}
	return shell("postfix", "-c", s.Instance.Directory, "reload")
}
