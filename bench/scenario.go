package main

import (
	"fmt"
	"strings"

	"github.com/scache/scache/bench/agent"
)

// Scenario is what is measured on every server alike.
type Scenario struct {
	Workload  agent.Workload `json:"workload"`
	Clients   int            `json:"clients"`
	Endpoints int            `json:"endpoints"` // that all clients share; 0: each has its own
	Cached    int            `json:"cached"`    // connections, beforehand; a cycle takes those of shared endpoints in turn
	Bound     int            `json:"bound"`     // destinations, beforehand
	Stopped   int            `json:"stopped"`   // further clients, in mid-request
	Rate      float64        `json:"rate"`      // operations a second, 0: closed loop
	Listed    bool           `json:"listed"`    // somebody lists what is cached, again and again
	Apart     bool           `json:"apart"`     // servers and agents have processors of their own
}

func (s Scenario) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s", s.Workload, count(s.Clients, "client", "clients"))
	if s.Endpoints > 0 {
		fmt.Fprintf(&b, ", %s", count(s.Endpoints, "endpoint", "endpoints"))
	}
	if s.Cached > 0 {
		fmt.Fprintf(&b, ", %s cached", grouped(s.Cached))
	}
	if s.Bound > 0 {
		fmt.Fprintf(&b, ", %s bound", grouped(s.Bound))
	}
	if s.Stopped > 0 {
		fmt.Fprintf(&b, ", %d stopped in mid-request", s.Stopped)
	}
	if s.Rate > 0 {
		fmt.Fprintf(&b, ", at %s a second", short(s.Rate))
	}
	if s.Listed {
		b.WriteString(", beside lists")
	}
	if s.Apart {
		b.WriteString(", processors apart")
	}
	return b.String()
}

// bare is the scenario without what was there beforehand and what disturbs. Of a scenario with lists it
// leaves out only the lists.
func (s Scenario) bare() Scenario {
	if s.Listed {
		s.Listed = false
		return s
	}
	s.Cached, s.Bound, s.Stopped = 0, 0, 0
	return s
}

// disturbed says whether something disturbs the clients, beyond what is there beforehand.
func (s Scenario) disturbed() bool { return s.Listed || s.Stopped > 0 }

// floorCan says whether the floor's fixed replies will do: it keeps connections by
// client, not by name.
func (s Scenario) floorCan() bool {
	return s.Endpoints == 0 && !(s.Workload == agent.Miss && s.Cached > 0)
}

// mostReserve is how many descriptors ours keeps for clients at most; else it is an eighth of its limit.
const mostReserve = 2048

// descriptors is how many open descriptors the busiest process needs: the agents
// with two for each client, or a server or sink with what is cached and a
// connection for each client. Some are needed by everybody. Of its limit ours keeps an
// eighth for clients.
func (s Scenario) descriptors() int {
	const some = 64
	return max(2*s.Clients, s.Cached+max(s.Clients, min((s.Cached+some)/7, mostReserve))) + s.Stopped + some
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(n) + " " + many
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int) string {
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
