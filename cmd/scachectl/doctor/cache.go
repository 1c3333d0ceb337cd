package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/scache/scache/cmd/scachectl/socket"
	"github.com/scache/scache/postfix"
)

// users are the agents that use the cache.
func (s *System) users(c *Cache) (users []*Agent) {
	for _, a := range s.Agents {
		if a.cacheName() == c.Name && a.caches() {
			users = append(users, a)
		}
	}
	return users
}

func names(agents []*Agent) (names []string) {
	for _, a := range agents {
		names = append(names, a.Name)
	}
	return names
}

func noCacheService(s *System, yield func(Finding)) {
	for _, c := range s.Caches {
		users := s.users(c)
		if c.Service != nil || c.Socket.Trouble == nil || c.Socket.Trouble.Kind == socket.Forbidden || len(users) == 0 {
			continue
		}
		text := fmt.Sprintf("connection_cache_service_name is %s, and master.cf has no such service, nor does anybody else listen at %s", c.Name, c.Socket.Path)
		if s.commentedOut[c.Name] {
			text = fmt.Sprintf("the line of %s in master.cf is commented out", c.Name)
		}
		yield(Finding{"no-cache-service", Error, names(users), text,
			"Delivery agents find no cache, try for seconds, and go on without.", s.startCache(c, users[0])})
	}
}

// startCache is how to have a cache that nobody provides, for one of its users. One of master(8) would
// take the place of what is to listen there, if that is somebody else's.
func (s *System) startCache(c *Cache, user *Agent) []string {
	switch {
	case c.Name == "scache-systemd": // of deploy/systemd/scache.socket
		return []string{"systemctl enable --now scache.socket"}
	case strings.Contains(c.Name, "/"): // in a directory of its own, as of a container
		return nil
	}
	return []string{addService(user, c.Name, "1 scache")}
}

// eachCache calls for the caches that there is a line for.
func (s *System) eachCache(visit func(c *Cache)) {
	for _, c := range s.Caches {
		if c.Service != nil {
			visit(c)
		}
	}
}

// field is the command that changes a field of the cache's line in master.cf.
func (s *System) field(c *Cache, name, value string) string {
	return shell(s.Instance.Command("-F", c.Service.ID()+"/"+name+"="+value)...)
}

func processLimit(s *System, yield func(Finding)) {
	s.eachCache(func(c *Cache) {
		if s.processes(c.Service) == 1 {
			return
		}
		yield(Finding{"process-limit", Error, []string{c.Name},
			fmt.Sprintf("the process limit of %s in master.cf is %s", c.Name, c.Service.ProcessLimit),
			"There must be one process that knows all connections: with another limit the cache ends itself at once.",
			[]string{s.field(c, "process_limit", "1")}})
	})
}

func notPrivate(s *System, yield func(Finding)) {
	s.eachCache(func(c *Cache) {
		if c.Service.Private != "n" {
			return
		}
		yield(Finding{"not-private", Error, []string{c.Name},
			fmt.Sprintf("%s is not private in master.cf", c.Name),
			"Its socket is in the directory public, and delivery agents look for it in private.",
			[]string{s.field(c, "private", "y")}})
	})
}

func noProgram(s *System, yield func(Finding)) {
	s.eachCache(func(c *Cache) {
		if !c.Binary.Missing {
			return
		}
		f := Finding{Rule: "no-program", Severity: Error, Services: []string{c.Name},
			Text: fmt.Sprintf("%s, which %s runs, is not an executable file", c.Binary.Path, c.Name),
			Why:  "master(8) cannot start the cache: delivery agents try for seconds, and go on without."}
		if c.Service.Program() != "scache" {
			f.Fix = []string{s.field(c, "command", "scache"+strings.TrimPrefix(c.Service.Command, c.Service.Program()))}
		}
		yield(f)
	})
}

// unknownToStock: Postfix's own scache reads none of the new parameters.
func unknownToStock(s *System, yield func(Finding)) {
	s.eachCache(func(c *Cache) {
		if c.Binary.Missing || c.Binary.Ours {
			return
		}
		for _, name := range postfix.NewParameters() {
			if value, set := c.Settings[name]; set {
				yield(Finding{"unknown-to-stock", Warning, []string{c.Name},
					fmt.Sprintf("%s = %s has no effect", name, value),
					fmt.Sprintf("%s is Postfix's own, which does not have this parameter.", c.Binary.Path), nil})
			}
		}
	})
}

// parameterMistake says what a cache will say at its start, in the same words.
func parameterMistake(s *System, yield func(Finding)) {
	s.eachCache(func(c *Cache) {
		if c.Fatal != nil {
			yield(Finding{"parameter-mistake", Error, []string{c.Name}, c.Fatal.Error(),
				"The cache does not start with it. One that runs goes on until it is started anew, at a reload or after max_idle; then delivery agents try for seconds, and go on without.", nil})
		}
		if c.Mistake != nil {
			yield(Finding{"parameter-mistake", Error, []string{c.Name}, c.Mistake.Error(), keepsNothing, nil})
		}
	})
}

const keepsNothing = "The cache keeps nothing with it, and mail is delivered without. One that runs goes on as it is until it is started anew, at a reload or after max_idle."

func fewPerEndpoint(s *System, yield func(Finding)) {
	concurrency := func(a *Agent) int { return a.Settings.Int(a.Name + "_destination_concurrency_limit") }
	for _, a := range s.Agents {
		c := s.cache(a.cacheName())
		limit, deliveries := c.Settings.Int("connection_cache_endpoint_limit"), concurrency(a)
		if limit == 0 || limit >= deliveries || !c.Binary.Ours || !a.caches() {
			continue
		}
		yield(a.finding("few-per-endpoint", Note,
			fmt.Sprintf("connection_cache_endpoint_limit is %d, and up to %d deliveries go to a destination at a time", limit, deliveries),
			fmt.Sprintf("Of a burst no more than %s kept. If no receiver demands it, allow as many as there are deliveries.", counted(limit, "connection is", "connections are")),
			s.changeCache(c, "connection_cache_endpoint_limit", fmt.Sprint(most(s, c, concurrency)))...))
	}
}

func fewInAll(s *System, yield func(Finding)) {
	s.eachCache(func(c *Cache) {
		limit, agents := c.Settings.Int("connection_cache_size_limit"), 0
		users := s.users(c)
		for _, a := range users {
			agents += s.processes(a.Service)
		}
		if limit == 0 || limit >= agents || !c.Binary.Ours {
			return
		}
		yield(Finding{"few-in-all", Warning, names(users),
			fmt.Sprintf("connection_cache_size_limit is %d, and up to %d processes deliver at a time", limit, agents),
			"Under load connections are closed before their time to make room for others.",
			s.changeCache(c, "connection_cache_size_limit", "0")})
	})
}

// notInForce: main.cf was changed without a reload, or the limits were.
func notInForce(s *System, yield func(Finding)) {
	s.eachCache(func(c *Cache) {
		for _, name := range slices.Sorted(maps.Keys(c.Socket.Limits)) {
			configured, set := c.Settings[name]
			inForce := c.Socket.Limits[name]
			if !set || c.Settings.Duration(name) == c.Socket.Limits.Duration(name) {
				continue
			}
			yield(Finding{"not-in-force", Note, []string{c.Name},
				fmt.Sprintf("%s is %s, and %s in the running cache", name, configured, inForce),
				"The configuration was changed after the cache was started, or the limit was, with \"scachectl limits\". A new process takes what is configured.",
				[]string{reload(s)}})
		}
	})
}

// unknownParameter: postconf(1) warns of the new parameters as it does of misspelt ones, so its
// warnings are no help.
func unknownParameter(s *System, yield func(Finding)) {
	ofCache := func(name string) bool { return strings.HasPrefix(name, "connection_cache_") }
	known := slices.DeleteFunc(slices.Concat(postfix.StockParameters(), postfix.NewParameters(),
		[]string{"connection_cache_service_name", "connection_cache_protocol_timeout"}), func(name string) bool { return !ofCache(name) })
	unknown := func(name string) bool { return ofCache(name) && !slices.Contains(known, name) }
	tell := func(name, where string, services ...string) {
		yield(Finding{"unknown-parameter", Warning, services,
			fmt.Sprintf("there is no parameter %s, which is set in %s", name, where),
			fmt.Sprintf("It has no effect. Those of a cache are %s.", strings.Join(known, ", ")), nil})
	}
	for _, name := range s.set {
		if unknown(name) {
			tell(name, "main.cf")
		}
	}
	s.eachCache(func(c *Cache) {
		for _, o := range c.Service.Overrides {
			if name, _, _ := strings.Cut(o, "="); unknown(name) {
				tell(name, "master.cf", c.Name)
			}
		}
	})
}
