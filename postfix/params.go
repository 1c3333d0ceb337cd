package postfix

import (
	"fmt"
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

// paramNames is what postconf(1) is asked for.
var paramNames = []string{
	"config_directory", "queue_directory", "mail_owner", "myhostname",
	"syslog_name", "syslog_facility", "smtputf8_enable",
	"maillog_file", "maillog_file_prefixes", "postlog_service_name",
	"max_idle", "ipc_timeout", "daemon_timeout",
	"connection_cache_ttl_limit", "connection_cache_status_update_time",
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

// own converts what only the connection cache has (scache/scache.c, main).
func (r rawParams) own(p *Params) error {
	return r.times([]timeParam{
		{"connection_cache_ttl_limit", &p.TTLLimit},
		{"connection_cache_status_update_time", &p.StatusUpdateTime},
	})
}

type timeParam struct {
	name string
	to   *time.Duration
}

// times converts time parameters; all of ours have the unit s by default, a
// minimum of 1 and no maximum (global/mail_conf_time.c).
func (r rawParams) times(params []timeParam) error {
	for _, p := range params {
		value, ok := parseTime(r[p.name])
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
