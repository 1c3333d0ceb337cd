package postfix

import (
	"fmt"
	"os"
	"strings"
)

const (
	syslogSocket    = "/dev/log"
	defaultFacility = 2 << 3 // LOG_MAIL
)

// maillog says where the mail log is, and under which name to write to it: by
// postlogd(8) if there is a maillog_file, else by syslogd(8).
type maillog struct {
	program  string // scache
	name     string // postfix; the tag is name/program
	facility int
	postlog  string // path of postlogd's socket; empty for syslog
	host     string // for postlog
}

// maillogOfEnvironment decides before the parameters are known
// (global/maillog_client.c, maillog_client_init; global/mail_task.c): master tells
// its children in the environment.
func maillogOfEnvironment(program string) maillog {
	m := maillog{program: program, name: "postfix", facility: defaultFacility}
	if name, ok := os.LookupEnv("MAIL_LOGTAG"); ok {
		m.name = name
	}
	m.postlog = os.Getenv("POSTLOG_SERVICE")
	if m.host = os.Getenv("POSTLOG_HOSTNAME"); m.host == "" {
		m.host = "amnesiac"
	}
	return m
}

// maillogOfParams decides once the parameters are known: only they count then.
// The facility is expected to be a known one.
func maillogOfParams(program string, p *Params) (maillog, error) {
	m := maillog{
		program:  program,
		name:     p.SyslogName,
		facility: facilities[p.SyslogFacility],
		host:     p.MyHostname,
	}
	if p.MaillogFile == "" {
		return m, nil
	}
	if !hasPrefixOf(p.MaillogFile, p.MaillogFilePrefixes) {
		return m, fmt.Errorf("maillog_file value '%s' does not match any prefix in maillog_file_prefixes", p.MaillogFile)
	}
	m.postlog = p.QueueDirectory + "/public/" + p.PostlogService
	return m, nil
}

// hasPrefixOf tells whether s begins with one of a list of prefixes.
func hasPrefixOf(s, list string) bool {
	for _, prefix := range strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

func (m maillog) tag() string { return m.name + "/" + m.program }

// open connects to the log. It always succeeds: a log that is not there now may be
// later, and what is lost meanwhile is counted.
func (m maillog) open() *sink {
	who := ident{tag: m.tag(), pid: os.Getpid()}
	if m.postlog == "" {
		return &sink{format: syslogFormat(who, m.facility), out: dialLogDaemon(syslogSocket)}
	}
	label, _, _ := strings.Cut(m.host, ".")
	return &sink{format: postlogFormat(who, label), out: dialLogDaemon(m.postlog)}
}
