package main

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/scache/scache/postfix"
	"github.com/scache/scache/server"
	"github.com/scache/scache/systemd"
)

// service is what systemd has given "scache serve", if it has started it. The zero
// service is what somebody else has started.
type service struct {
	listeners []systemd.Listener
	notifier  *systemd.Notifier
	watchdog  time.Duration // it waits so long for a sign of life; 0 is for ever
	wrong     error         // with what it has given us
	log       server.Logger
	warned    atomic.Bool // that it cannot be told
}

// joinService looks at what systemd has passed. Sockets that cannot be served are an error;
// whatever else is wrong is only logged, when there is a log.
func joinService() (s *service, err error) {
	s = new(service)
	s.listeners, err = systemd.Listeners()
	var notifying, watching error
	s.notifier, notifying = systemd.NewNotifier()
	s.watchdog, watching = systemd.WatchdogInterval()
	s.wrong = errors.Join(notifying, watching)
	return s, err
}

// caches are those of the sockets that were passed: one for each name, so that sockets
// with the same one share it.
func (s *service) caches() (caches []server.Cache) {
	for _, l := range s.listeners {
		i := slices.IndexFunc(caches, func(c server.Cache) bool { return c.Name == l.Name })
		if i < 0 {
			i = len(caches)
			caches = append(caches, server.Cache{Name: l.Name})
		}
		caches[i].Listeners = append(caches[i].Listeners, l.FD)
	}
	return caches
}

// reportOn makes the server report to systemd.
func (s *service) reportOn(config *server.Config) {
	s.log = config.Log
	s.tell(s.wrong)
	config.Heartbeat = s.watchdog / 2
	if s.notifier != nil {
		config.Beat = s.beat
	}
}

// ready tells that the server is about to run.
func (s *service) ready() {
	for _, l := range s.listeners {
		s.log.Infof("version %s listening on %s, passed as %s", version, l.Path, l.Name)
	}
	s.tell(s.notifier.Ready(statusText(server.Status{})))
}

func (s *service) beat(status server.Status) {
	say := s.notifier.Alive
	if status.Stopping {
		say = s.notifier.Stopping
	}
	s.tell(say(statusText(status)))
}

// tell logs the first notification that fails. The cache goes on in any case; systemd ends a
// service that it does not hear to be ready. It may be called by several goroutines.
func (s *service) tell(err error) {
	if err != nil && s.warned.CompareAndSwap(false, true) {
		s.log.Warningf("systemd: %v", err)
	}
}

// statusText is the line that "systemctl status" shows.
func statusText(s server.Status) string {
	text := fmt.Sprintf("connections cached: %d; clients: %d", s.Connections, s.Clients)
	if lookups := s.Hits + s.Misses; lookups > 0 {
		text += fmt.Sprintf("; look-ups: %d, %d%% hit", lookups, s.Hits*100/lookups)
	}
	return text
}

// logFormats are the values of -log-format. Where standard error is the journal, no
// date and process are written: the journal adds them.
func logFormats() map[string]postfix.StderrFormat {
	formats := map[string]postfix.StderrFormat{
		"auto": postfix.DatedText, "text": postfix.DatedText, "journal": postfix.JournalText, "json": postfix.JSON,
	}
	if systemd.JournalReads(2) {
		formats["auto"] = postfix.JournalText
	}
	return formats
}
