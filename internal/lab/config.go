package lab

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// sender is where smtp-source's mail says it is from: bounces end there.
const sender = "sender.test"

// mainCF is what every lab starts from; Config.Main goes over it.
func (l *Lab) mainCF() map[string]string {
	return map[string]string{
		"compatibility_level":   "3.6",
		"queue_directory":       l.path("queue"),
		"data_directory":        l.path("data"),
		"daemon_directory":      l.sbin,
		"meta_directory":        l.path("meta"),
		"maillog_file":          l.path("log"),
		"maillog_file_prefixes": l.dir,
		// 10 s are not enough where a disk stands still: then it ends, and nobody can log for a minute.
		"postlogd_watchdog_timeout": "300s",

		"myhostname":             "lab.test",
		"mynetworks":             "127.0.0.0/8",
		"mydestination":          "",
		"local_recipient_maps":   "",
		"alias_maps":             "",
		"fast_flush_domains":     "", // there is no flush service
		"transport_maps":         l.transportMap(),
		"inet_interfaces":        "loopback-only",
		"inet_protocols":         "ipv4",
		"smtp_host_lookup":       "native", // no name server is asked
		"smtp_dns_support_level": "disabled",

		// Each test says itself what is cached.
		"smtp_connection_cache_on_demand": "no",
	}
}

// transportMap may not be an empty table: that would defer everything.
func (l *Lab) transportMap() string {
	var b strings.Builder
	fmt.Fprintf(&b, "inline:{ {%s=discard:}", sender)
	for _, domain := range slices.Sorted(maps.Keys(l.cfg.Routes)) {
		fmt.Fprintf(&b, ", {%s=smtp:%s}", domain, l.cfg.Routes[domain])
	}
	return b.String() + " }"
}

func (l *Lab) masterCF() string {
	chroot := "n"
	if l.cfg.Chroot {
		chroot = "y"
	}
	words := func(args []string) string { return strings.Join(args, " ") }
	return fmt.Sprintf(`
inject    unix        n  -  n  -      -  smtpd
pickup    unix        n  -  n  60     1  pickup
cleanup   unix        n  -  n  -      0  cleanup
qmgr      unix        n  -  n  300    1  qmgr
tlsmgr    unix        -  -  n  1000?  1  tlsmgr
rewrite   unix        -  -  n  -      -  trivial-rewrite
bounce    unix        -  -  n  -      0  bounce
defer     unix        -  -  n  -      0  bounce
trace     unix        -  -  n  -      0  bounce
proxymap  unix        -  -  n  -      -  proxymap
smtp      unix        -  -  n  -      %d smtp %s
showq     unix        n  -  n  -      -  showq
error     unix        -  -  n  -      -  error
retry     unix        -  -  n  -      -  error
discard   unix        -  -  n  -      -  discard
anvil     unix        -  -  n  -      1  anvil
tlsproxy  unix        -  -  n  -      0  tlsproxy
postlog   unix-dgram  n  -  n  -      1  postlogd
%s        unix        -  -  %s -      %s scache %s
%s
`,
		cmp.Or(l.cfg.SMTPProcs, 10), words(l.cfg.SMTPArgs),
		cmp.Or(l.cfg.Service, "scache"), chroot, cmp.Or(l.cfg.Limit, "1"), words(l.cfg.MasterArgs),
		l.cfg.Services)
}

func (l *Lab) writeConfig() error {
	params := l.mainCF()
	maps.Copy(params, l.cfg.Main)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(params)) {
		fmt.Fprintf(&b, "%s = %s\n", name, params[name])
	}
	for file, text := range map[string]string{"etc/main.cf": b.String(), "etc/master.cf": l.masterCF()} {
		if err := os.WriteFile(l.path(file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// Postfix programs wait until a main.cf has not been written to for
	// two seconds.
	past := time.Now().Add(-time.Minute)
	return os.Chtimes(l.path("etc/main.cf"), past, past)
}
