package doctor

import (
	"fmt"

	"github.com/scache/scache/cmd/scachectl/socket"
)

// Report is a diagnosis to print, or to turn into JSON.
type Report struct {
	Postfix struct {
		Version         string `json:"version"`
		ConfigDirectory string `json:"config_directory"`
		Reload          string `json:"reload"` // the command by which changes take effect
	} `json:"postfix"`
	Caches   []CacheReport `json:"caches"`
	Agents   []AgentReport `json:"agents"`
	Log      LogReport     `json:"log"`
	Findings []Finding     `json:"findings"`
}

// CacheReport is a cache that agents use, in words.
type CacheReport struct {
	Service string `json:"service"`
	Program string `json:"program"`
	Socket  string `json:"socket"`

	Rules []RuleReport `json:"rules,omitempty"` // of connection_cache_policy_file, in order
}

// RuleReport is a rule for destinations, as it is written and in words.
type RuleReport struct {
	Place   string `json:"place"` // file and line
	Rule    string `json:"rule"`
	Meaning string `json:"meaning"`
}

// AgentReport is what a delivery agent caches, in words.
type AgentReport struct {
	Service    string `json:"service"`
	Caches     string `json:"caches"`
	TimeToLive string `json:"time_to_live"`
	TLS        string `json:"tls"`
}

// LogReport is what the mail log tells.
type LogReport struct {
	Path       string `json:"path"`
	Deliveries int    `json:"deliveries"`
	Reused     int    `json:"reused"`
}

// NewReport diagnoses a System.
func NewReport(s *System) *Report {
	r := &Report{Caches: []CacheReport{}, Agents: []AgentReport{}, Findings: Diagnose(s), Log: LogReport{s.Log.Path, s.Log.Deliveries, s.Log.Reused}}
	r.Postfix.Version = s.Main["mail_version"]
	r.Postfix.ConfigDirectory = s.Main["config_directory"]
	r.Postfix.Reload = reload(s)
	for _, c := range s.Caches {
		r.Caches = append(r.Caches, CacheReport{c.Name, c.program(), c.answer(), c.rules()})
	}
	for _, a := range s.Agents {
		r.Agents = append(r.Agents, AgentReport{a.Name, a.policy(), s.granted(a), a.underTLS()})
	}
	return r
}

// Worst is the severity of the worst finding; Note if there is none.
func (r *Report) Worst() Severity {
	if len(r.Findings) == 0 {
		return Note
	}
	return r.Findings[0].Severity
}

func (c *Cache) program() string {
	switch b := c.Binary; {
	case c.Service == nil && c.Socket.Trouble == nil:
		return "another service than master(8)'s"
	case c.Service == nil:
		return "not in master.cf"
	case b.Missing:
		return b.Path + " is missing"
	case b.Ours:
		return fmt.Sprintf("%s is version %s of this project", b.Path, b.Version)
	default:
		return b.Path + " is Postfix's own"
	}
}

func (c *Cache) answer() string {
	switch {
	case c.Socket.Trouble == nil:
		return "answers"
	case c.Socket.Idle:
		return "Postfix does not run"
	case c.Socket.Trouble.Kind == socket.Forbidden:
		return "was not tried"
	}
	return "does not answer"
}

// policy is when the agent caches.
func (a *Agent) policy() string {
	switch {
	case !a.caches():
		return "never"
	case a.destinations() == "":
		return "on demand"
	case a.onDemand():
		return "always for " + a.destinations() + "; else on demand"
	}
	return "for " + a.destinations()
}

// granted is the time to live that the agent's connections have.
func (s *System) granted(a *Agent) string {
	limit := s.cache(a.cacheName()).Settings.Duration("connection_cache_ttl_limit")
	if !a.caches() || limit == 0 {
		return "-"
	}
	return seconds(min(a.duration("connection_cache_time_limit"), limit))
}

// underTLS is whether connections under TLS are cached.
func (a *Agent) underTLS() string {
	switch {
	case !a.secures():
		return "TLS is off"
	case !a.yes("tls_connection_reuse"):
		return "not cached"
	case a.TLSProxy == nil:
		return "no tlsproxy"
	}
	return "by " + a.TLSProxy.Name
}
