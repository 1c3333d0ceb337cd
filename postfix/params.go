package postfix

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Params are the main.cf parameters that matter here, with the -o options of the
// command line applied.
type Params struct {
	TTLLimit         time.Duration // connection_cache_ttl_limit, at least 1 s
	StatusUpdateTime time.Duration // connection_cache_status_update_time, at least 1 s
	MaxIdle          time.Duration // max_idle, at least 1 s
	IPCTimeout       time.Duration // ipc_timeout, at least 1 s
	DaemonTimeout    time.Duration // daemon_timeout, at least 1 s

	// What Postfix does not have, each named connection_cache_... If there is a Mistake in one, all
	// are their defaults.
	SizeLimit         int    // size_limit: connections; 0: what the descriptors allow
	EndpointLimit     int    // endpoint_limit: connections per endpoint; 0: no limit
	BindingLimit      int    // binding_limit: bindings, at least 1
	DestinationLimit  int    // destination_limit: bindings per destination, at least 1
	TextLimit         int    // text_limit: bytes of labels and properties, at least 1
	ClientMemoryLimit int    // client_memory_limit: bytes kept for clients, at least 1
	LIFO              bool   // reuse_order: the newest connection first
	Quit              bool   // close_handshake: QUIT before a close
	PolicyFile        string // policy_file: an absolute path; empty: none
	Mistake           error  `json:"-"`

	ConfigDirectory     string
	QueueDirectory      string
	MailOwner           string
	MyHostname          string
	SyslogName          string
	SyslogFacility      string // a known one
	MaillogFile         string // empty: syslog
	MaillogFilePrefixes string
	PostlogService      string
}

// stockNames are the parameters of Postfix that matter here.
var stockNames = []string{
	"config_directory", "queue_directory", "mail_owner", "myhostname",
	"syslog_name", "syslog_facility", "smtputf8_enable",
	"maillog_file", "maillog_file_prefixes", "postlog_service_name",
	"max_idle", "ipc_timeout", "daemon_timeout",
	"connection_cache_ttl_limit", "connection_cache_status_update_time",
}

// paramNames is what postconf(1) is asked for.
var paramNames = slices.Concat(stockNames, NewParameters())

// newDefaults are the parameters that Postfix does not have, and what they are if
// they are not set.
var newDefaults = rawParams{
	"connection_cache_size_limit":          "0",
	"connection_cache_endpoint_limit":      "0",
	"connection_cache_binding_limit":       "1048576",
	"connection_cache_destination_limit":   "4096",
	"connection_cache_text_limit":          "268435456",
	"connection_cache_client_memory_limit": "67108864",
	"connection_cache_reuse_order":         "fifo",
	"connection_cache_close_handshake":     "none",
	"connection_cache_policy_file":         "",
}

// rawParams are parameter values by name, expanded but not converted.
type rawParams map[string]string

// facility takes syslog_facility, before all others, so that their errors are
// logged with it (global/mail_params.c, mail_params_init).
func (r rawParams) facility() (name string, err error) {
	name = r["syslog_facility"]
	if err := r.nonEmpty("syslog_facility"); err != nil {
		return "", err
	}
	if _, known := facilities[name]; !known {
		return "", r.complain("syslog_facility", "unrecognized value: %s", name)
	}
	return name, nil
}

// utf8 tells whether UTF-8 is printable in the log.
func (r rawParams) utf8() bool { return strings.EqualFold(r["smtputf8_enable"], "yes") }

// common converts what every Postfix daemon has, in the order of
// global/mail_params.c, mail_params_init.
func (r rawParams) common() (*Params, error) {
	p := &Params{
		ConfigDirectory:     r["config_directory"],
		QueueDirectory:      r["queue_directory"],
		MailOwner:           r["mail_owner"],
		MyHostname:          r["myhostname"],
		SyslogName:          r["syslog_name"],
		SyslogFacility:      r["syslog_facility"],
		MaillogFile:         r["maillog_file"],
		MaillogFilePrefixes: r["maillog_file_prefixes"],
		PostlogService:      r["postlog_service_name"],
	}
	required := []string{"myhostname", "syslog_name", "mail_owner", "queue_directory"}
	if p.MaillogFile != "" { // Postfix before 3.4 has none of these
		required = append(required, "maillog_file_prefixes", "postlog_service_name")
	}
	for _, name := range required {
		if err := r.nonEmpty(name); err != nil {
			return nil, err
		}
	}
	err := r.times([]timeParam{
		{"max_idle", &p.MaxIdle},
		{"ipc_timeout", &p.IPCTimeout},
		{"daemon_timeout", &p.DaemonTimeout},
	})
	return p, err
}

// own converts what only the connection cache has. An error is about what Postfix's has too
// (scache/scache.c, main); one in what is new is left in p, behind what there was already.
func (r rawParams) own(p *Params) error {
	if p.Mistake = cmp.Or(p.Mistake, r.added(p)); p.Mistake != nil {
		_ = newDefaults.added(p)
	}
	return r.times([]timeParam{
		{"connection_cache_ttl_limit", &p.TTLLimit},
		{"connection_cache_status_update_time", &p.StatusUpdateTime},
	})
}

// added converts what Postfix does not have.
func (r rawParams) added(p *Params) error {
	err := r.integers([]intParam{
		{"connection_cache_size_limit", 0, &p.SizeLimit},
		{"connection_cache_endpoint_limit", 0, &p.EndpointLimit},
		{"connection_cache_binding_limit", 1, &p.BindingLimit},
		{"connection_cache_destination_limit", 1, &p.DestinationLimit},
		{"connection_cache_text_limit", 1, &p.TextLimit},
		{"connection_cache_client_memory_limit", 1, &p.ClientMemoryLimit},
	})
	if err != nil {
		return err
	}
	err = r.choices([]choiceParam{
		{"connection_cache_reuse_order", "fifo", "lifo", &p.LIFO},
		{"connection_cache_close_handshake", "none", "quit", &p.Quit},
	})
	if err != nil {
		return err
	}
	const policyFile = "connection_cache_policy_file"
	p.PolicyFile = r[policyFile]
	if p.PolicyFile != "" && !filepath.IsAbs(p.PolicyFile) {
		return r.complain(policyFile, "bad value: %s (want the absolute path of a file)", p.PolicyFile)
	}
	return nil
}

type timeParam struct {
	name string
	to   *time.Duration
}

// times converts time parameters; all of ours have the unit s by default, a
// minimum of 1 and no maximum (global/mail_conf_time.c).
func (r rawParams) times(params []timeParam) error {
	for _, p := range params {
		value, ok := ParseTime(r[p.name])
		if !ok {
			return fmt.Errorf("parameter %s: bad time value or unit: %s", p.name, r[p.name])
		}
		if value < time.Second {
			return fmt.Errorf("invalid %s: %d (min 1)", p.name, value/time.Second)
		}
		*p.to = value
	}
	return nil
}

type intParam struct {
	name string
	min  int
	to   *int
}

// integers converts numbers; the errors are those of global/mail_conf_int.c.
func (r rawParams) integers(params []intParam) error {
	for _, p := range params {
		value, ok := parseInt(r[p.name])
		if !ok {
			return fmt.Errorf("bad numerical configuration: %s = %s", p.name, r[p.name])
		}
		if value < p.min {
			return fmt.Errorf("invalid %s parameter value %d < %d", p.name, value, p.min)
		}
		*p.to = value
	}
	return nil
}

type choiceParam struct {
	name    string
	no, yes string
	to      *bool
}

// choices converts words of which there are two, in whatever case, as Postfix has
// it with its own yes and no.
func (r rawParams) choices(params []choiceParam) error {
	for _, p := range params {
		value := r[p.name]
		*p.to = strings.EqualFold(value, p.yes)
		if !*p.to && !strings.EqualFold(value, p.no) {
			return r.complain(p.name, "bad value: %s (want %s or %s)", value, p.no, p.yes)
		}
	}
	return nil
}

// nonEmpty is the length check of global/mail_conf_str.c, check_mail_conf_str.
func (r rawParams) nonEmpty(name string) error {
	if r[name] == "" {
		return fmt.Errorf("bad string length 0 < 1: %s = ", name)
	}
	return nil
}

// complain words an error about the value of a parameter.
func (r rawParams) complain(name, format string, args ...any) error {
	return badValue(r["config_directory"], name, format, args...)
}

func badValue(configDirectory, name, format string, args ...any) error {
	return fmt.Errorf("file %s/main.cf: parameter %s: %s", configDirectory, name, fmt.Sprintf(format, args...))
}

// CheckParameters returns what a cache would complain of at its start, given expanded values of
// StockParameters and NewParameters: fatal is what it would end with, mistake what it would keep nothing for. New parameters that
// are missing have their defaults.
func CheckParameters(values map[string]string) (fatal, mistake error) {
	r := maps.Clone(newDefaults)
	maps.Copy(r, values)
	if _, err := r.facility(); err != nil {
		return err, nil
	}
	p, err := r.common()
	if err != nil {
		return err, nil
	}
	fatal = r.own(p)
	return fatal, p.Mistake
}

// Defaults are the parameters that Postfix does not have, as they are if they are not set.
func Defaults() (p Params) {
	_ = newDefaults.added(&p)
	return p
}

// StockParameters names the parameters of Postfix that a cache looks at.
func StockParameters() []string { return slices.Clone(stockNames) }

// NewParameters names the parameters that Postfix does not have, in order.
func NewParameters() []string { return slices.Sorted(maps.Keys(newDefaults)) }
