package doctor

import "fmt"

// level is how the agent uses TLS, as far as main.cf tells; empty: not at all.
func (a *Agent) level() string {
	return levelOf(a.value("tls_security_level"), a.yes("use_tls"), a.yes("enforce_tls"))
}

// levelOf is what comes of a security level and the older parameters, which count where that is
// not set (smtp/smtp.c, post_init; tlsproxy/tlsproxy.c, pre_jail_init_client).
func levelOf(level string, use, enforce bool) string {
	switch {
	case level == "none":
		return ""
	case level != "":
		return level
	case enforce:
		return "encrypt"
	case use:
		return "may"
	}
	return ""
}

// secures tells whether some connections may be under TLS.
func (a *Agent) secures() bool {
	return a.level() != "" || a.value("tls_policy_maps") != "" || a.value("tls_per_site") != ""
}

// An open TLS connection cannot be handed to another process; tlsproxy(8) keeps its
// state, if smtp_tls_connection_reuse says so (smtp/smtp_proto.c, smtp_start_tls).
func tlsNotReused(s *System, yield func(Finding)) {
	for _, a := range s.Agents {
		if !a.secures() || a.yes("tls_connection_reuse") || !a.caches() {
			continue
		}
		severity := Error
		why := "No connection under TLS is cached, and all have to be under TLS: nothing is cached."
		if level := a.level(); level == "may" || level == "dane" || level == "" {
			severity, why = Warning, "No connection under TLS is cached, and most receivers offer TLS."
		}
		fix := []string{a.change("tls_connection_reuse", "yes")}
		if a.TLSProxy == nil {
			fix = append(fix, a.addTLSProxy())
		}
		text := fmt.Sprintf("%stls_security_level is %s, and %[1]stls_connection_reuse is off", a.Prefix, a.level())
		if a.level() == "" {
			text = fmt.Sprintf("%stls_policy_maps ask for TLS, and %[1]stls_connection_reuse is off", a.Prefix)
		}
		yield(a.finding("tls-not-reused", severity, text, why, fix...))
	}
}

func (a *Agent) addTLSProxy() string {
	return addService(a, a.Settings["tlsproxy_service_name"], "0 tlsproxy")
}

func noTLSProxy(s *System, yield func(Finding)) {
	for _, a := range s.Agents {
		if !a.secures() || !a.yes("tls_connection_reuse") || a.TLSProxy != nil {
			continue
		}
		name := a.Settings["tlsproxy_service_name"]
		text := fmt.Sprintf("%stls_connection_reuse is on, and master.cf has no service %s", a.Prefix, name)
		if s.commentedOut[name] {
			text = fmt.Sprintf("%stls_connection_reuse is on, and the line of %s in master.cf is commented out", a.Prefix, name)
		}
		yield(a.finding("no-tlsproxy", Error, text,
			"Connections under TLS need tlsproxy(8) to be reused; without it deliveries over TLS fail.",
			a.addTLSProxy()))
	}
}

// tlsproxy(8) sets up TLS by its own parameters, which follow those of smtp(8) in
// main.cf; what smtp(8) has from -o it does not see, and 3.7.11 crashes.
func tlsProxyWithoutLevel(s *System, yield func(Finding)) {
	for _, a := range s.Agents {
		if a.level() == "" || !a.yes("tls_connection_reuse") || a.TLSProxy == nil || a.TLSProxyReady {
			continue
		}
		yield(a.finding("tlsproxy-without-level", Error,
			fmt.Sprintf("%stls_security_level is set where tlsproxy(8) does not see it, whose tlsproxy_client_security_level is empty or none", a.Prefix),
			"tlsproxy(8) is not ready for TLS as a client; that of Postfix 3.7 crashes when it is asked to.",
			change(s.Instance, a.TLSProxy, "tlsproxy_client_security_level", a.level())))
	}
}
