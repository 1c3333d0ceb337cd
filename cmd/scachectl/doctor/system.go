package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scache/scache/cmd/scachectl/postconf"
	"github.com/scache/scache/policy"
	"github.com/scache/scache/postfix"
)

// System is what there is to know about a Postfix instance.
type System struct {
	Instance postconf.Instance
	Main     Settings // those that no service overrides
	Services []*postconf.Service
	Agents   []*Agent
	Caches   []*Cache // those that agents use, each once
	Log      Log

	// commentedOut are the services in master.cf that are so.
	commentedOut map[string]bool
	// set are the names that main.cf sets, and that nothing refers to.
	set []string
}

// Settings are parameters' values by name.
type Settings map[string]string

// Duration is the value of a time parameter; 0 if it has none.
func (s Settings) Duration(name string) time.Duration {
	value, _ := postfix.ParseTime(s[name])
	return value
}

// Int is the value of a number; 0 if it has none.
func (s Settings) Int(name string) int {
	n, _ := strconv.Atoi(s[name])
	return n
}

// Yes is the value of a boolean.
func (s Settings) Yes(name string) bool { return strings.EqualFold(s[name], "yes") }

// Agent is a service that delivers by SMTP or LMTP. Its parameters are named with
// Prefix in front.
type Agent struct {
	*postconf.Service
	Prefix   string // smtp_ or lmtp_
	Settings Settings

	TLSProxy      *postconf.Service // that does TLS for it; nil: master.cf has none
	TLSProxyReady bool              // its own parameters say that there will be TLS

	instance postconf.Instance
}

func (a *Agent) value(name string) string           { return a.Settings[a.Prefix+name] }
func (a *Agent) yes(name string) bool               { return a.Settings.Yes(a.Prefix + name) }
func (a *Agent) duration(name string) time.Duration { return a.Settings.Duration(a.Prefix + name) }
func (a *Agent) int(name string) int                { return a.Settings.Int(a.Prefix + name) }

// change is the command that sets a parameter of the agent, where it is set now.
func (a *Agent) change(name, value string) string {
	return change(a.instance, a.Service, a.Prefix+name, value)
}

// change is the command that sets a parameter: an override of the service, if there
// is one, else in main.cf.
func change(instance postconf.Instance, service *postconf.Service, name, value string) string {
	for _, o := range service.Overrides {
		if strings.HasPrefix(o, name+"=") {
			return shell(instance.Command("-P", service.ID()+"/"+name+"="+value)...)
		}
	}
	return shell(instance.Command("-e", name+" = "+value)...)
}

// addService is the command that adds a line to master.cf, chrooted or not as the agent is that
// needs it.
func addService(a *Agent, name, limitAndCommand string) string {
	return shell(a.instance.Command("-M", fmt.Sprintf("%s/unix=%[1]s unix - - %s - %s", name, a.Chroot, limitAndCommand))...)
}

// Cache is what keeps agents' connections.
type Cache struct {
	Name     string            // as the agents call it
	Service  *postconf.Service // nil: master.cf has none of this name; others may listen there
	Settings Settings          // by master.cf and main.cf; without Service, those in force
	Binary   Binary
	Socket   Socket

	Fatal         error          // in Settings, at which the cache ends
	Mistake       error          // in Settings, for which it keeps nothing
	Policy        *policy.Policy // of connection_cache_policy_file; nil: none, or PolicyTrouble
	PolicyTrouble error          // why it cannot be read
}

func (a *Agent) cacheName() string { return a.Settings["connection_cache_service_name"] }

// The parameters that are looked at: those of agents stand behind smtp_ and lmtp_.
var (
	mainNames = []string{
		"mail_version", "config_directory", "queue_directory", "daemon_directory", "mail_owner", "maillog_file",
		"default_process_limit", "relayhost", "default_transport", "relay_transport",
		"syslog_name",
	}
	agentNames = []string{
		"connection_cache_on_demand", "connection_cache_destinations", "connection_cache_time_limit",
		"connection_reuse_time_limit", "connection_reuse_count_limit",
		"tls_security_level", "use_tls", "enforce_tls", "tls_policy_maps", "tls_per_site", "tls_connection_reuse",
		"sasl_auth_enable", "sasl_password_maps", "sender_dependent_authentication",
	}
	sharedNames = []string{"connection_cache_service_name", "tlsproxy_service_name", "syslog_name"}
)

// Read collects what there is to know. Only what postconf(1) cannot read is an
// error; of the rest, what is not to be had is missing in the System.
func Read(ctx context.Context, instance postconf.Instance) (*System, error) {
	s := &System{Instance: instance}
	var err error
	if s.Main, err = instance.Values(ctx, nil, mainNames); err != nil {
		return nil, err
	}
	if s.Services, err = instance.Services(ctx); err != nil {
		return nil, err
	}
	for _, service := range s.Services {
		if program := service.Program(); program == "smtp" || program == "lmtp" {
			if err := s.addAgent(ctx, service); err != nil {
				return nil, err
			}
		}
	}
	for _, agent := range s.Agents {
		if err := s.addCache(ctx, agent.cacheName()); err != nil {
			return nil, err
		}
	}
	main, _ := os.ReadFile(filepath.Join(s.Main["config_directory"], "main.cf"))
	master, _ := os.ReadFile(filepath.Join(s.Main["config_directory"], "master.cf"))
	s.commentedOut = commentedOut(master)
	s.set = setNames(main, master)
	s.Log = readLog(s.Main["maillog_file"], s.logNames())
	return s, nil
}

// logNames are what this instance has in its lines in the log: others may log to the same file.
func (s *System) logNames() []string {
	names := []string{s.Main["syslog_name"]}
	for _, a := range s.Agents {
		names = append(names, a.Settings["syslog_name"])
	}
	for _, c := range s.Caches {
		names = append(names, c.Settings["syslog_name"])
	}
	return names
}

func (s *System) addAgent(ctx context.Context, service *postconf.Service) error {
	agent := &Agent{Service: service, Prefix: service.Program() + "_", instance: s.Instance}
	names := slices.Clone(sharedNames)
	for _, name := range agentNames {
		names = append(names, agent.Prefix+name)
	}
	var err error
	if agent.Settings, err = s.Instance.Values(ctx, service.Overrides, names); err != nil {
		return err
	}
	// The queue manager's and master's: a service cannot override them.
	transport := service.Name + "_destination_concurrency_limit"
	own, err := s.Instance.Values(ctx, nil, []string{transport})
	maps.Copy(agent.Settings, own)
	s.Agents = append(s.Agents, agent)
	if err != nil {
		return err
	}
	const level, use, enforce = "tlsproxy_client_security_level", "tlsproxy_client_use_tls", "tlsproxy_client_enforce_tls"
	const policy, perSite = "tlsproxy_client_policy_maps", "tlsproxy_client_per_site"
	if agent.TLSProxy = s.service(agent.Settings["tlsproxy_service_name"]); agent.TLSProxy != nil {
		own, err = s.Instance.Values(ctx, agent.TLSProxy.Overrides, []string{level, use, enforce, policy, perSite})
		tls := Settings(own)
		agent.TLSProxyReady = levelOf(tls[level], tls.Yes(use), tls.Yes(enforce))+tls[policy]+tls[perSite] != ""
	}
	return err
}

func (s *System) addCache(ctx context.Context, name string) error {
	if s.cache(name) != nil {
		return nil
	}
	c := &Cache{Name: name, Service: s.service(name)}
	s.Caches = append(s.Caches, c)
	directory := "private"
	if c.Service != nil && c.Service.Private == "n" {
		directory = "public"
	}
	c.Socket = probe(ctx, filepath.Join(s.Main["queue_directory"], directory, name))
	if c.Service == nil {
		c.Socket.Idle = false // whether Postfix runs is nothing to it
		c.Settings = c.Socket.Limits
		c.Binary = Binary{Ours: c.Socket.Limits != nil}
		return nil
	}
	stock := postfix.StockParameters()
	var err, unexpanded error
	c.Settings, unexpanded = s.Instance.Values(ctx, c.Service.Overrides, slices.Concat(stock, postfix.NewParameters()))
	if unexpanded != nil { // perhaps a new one: the cache goes on without these
		c.Settings, err = s.Instance.Values(ctx, c.Service.Overrides, stock)
	}
	c.Binary = inspect(ctx, filepath.Join(s.Main["daemon_directory"], c.Service.Program()))
	if err != nil || !c.Binary.Ours {
		return err
	}
	fatal, mistake := postfix.CheckParameters(c.Settings)
	if c.Fatal, c.Mistake = fatal, cmp.Or(unexpanded, mistake); c.Mistake != nil {
		return nil
	}
	if file := c.Settings["connection_cache_policy_file"]; file != "" {
		c.Policy, c.PolicyTrouble = policy.Load(file)
	}
	return nil
}

// changeCache is the command that sets a parameter of a cache of master(8); of
// another one there is none.
func (s *System) changeCache(c *Cache, name, value string) []string {
	if c.Service == nil {
		return nil
	}
	return []string{change(s.Instance, c.Service, name, value)}
}

func (s *System) cache(name string) *Cache {
	for _, c := range s.Caches {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// service is the one that listens on a UNIX-domain socket of this name.
func (s *System) service(name string) *postconf.Service {
	for _, service := range s.Services {
		if service.Name == name && service.Type == "unix" {
			return service
		}
	}
	return nil
}

// processes is how many of a service may run at a time; 0 is no limit.
func (s *System) processes(service *postconf.Service) int {
	if service.ProcessLimit == "-" {
		return s.Main.Int("default_process_limit")
	}
	n, _ := strconv.Atoi(service.ProcessLimit)
	return n
}

// setNames are the names that main.cf sets. Those that another value refers to, there or in
// master.cf, are left out: they may be anybody's own.
func setNames(main, master []byte) (names []string) {
	taken := map[string]bool{} // referred to, or in names
	for _, text := range [][]byte{main, master} {
		for _, m := range regexp.MustCompile(`\$[({]?(\w+)`).FindAllSubmatch(text, -1) {
			taken[string(m[1])] = true
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)\s*=`).FindAllSubmatch(main, -1) {
		if name := string(m[1]); !taken[name] {
			taken[name] = true
			names = append(names, name)
		}
	}
	return names
}

// commentedOut are the services whose lines in master.cf have a # in front.
func commentedOut(master []byte) map[string]bool {
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#\s*(\w+)\s+unix\s+\S+\s+\S+\s+\S+\s+\S+\s+\S+\s+\w`).FindAllSubmatch(master, -1) {
		names[string(m[1])] = true
	}
	return names
}
