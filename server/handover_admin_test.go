package server

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/proto"
)

// counted asks for the statistics.
func counted(t *testing.T, fd int) map[string]int {
	t.Helper()
	n := map[string]int{}
	for name, value := range ask(t, fd, proto.AdminStatistics) {
		n[name], _ = strconv.Atoi(value)
	}
	return n
}

// What has been counted goes on in another process, and so does the age of what is cached.
func TestCountersAreTakenOver(t *testing.T) {
	r := run(t, handsOver)
	client, operator := r.dial(), r.dial()
	defer unix.Close(client)
	defer unix.Close(operator)
	for range 2 {
		say(client, "request\x00save_dest\x00ttl\x0050\x00label\x00d\x00property\x00dp\x00label\x00e\x00\x00")
		expect(t, client, "status\x000\x00\x00")
	}
	for range 4 {
		near, _ := far(t)
		save(t, client, "50", "e", near)
	}
	say(client, find("e"))
	expect(t, client, "status\x000\x00property\x00p\x00\x00")
	say(client, proto.DummyMessage)
	unix.Close(receive(t, client))
	say(client, proto.DummyMessage+find("e"))
	expect(t, client, "status\x000\x00property\x00p\x00\x00") // and now it has one on its way
	time.Sleep(20 * time.Millisecond)
	before := counted(t, operator)
	for n := range 2 {
		r = r.succeed()
		after := counted(t, operator)
		addUp(t, after)
		if successors := after["clients_accepted"] - before["clients_accepted"]; successors != n+1 {
			t.Errorf("%d clients more have been accepted, want the %d successors", successors, n+1)
		}
		for _, name := range []string{"connections_saved", "connections", "connections_found", "connections_peak", "closed_taken", "endpoint_hits",
			"bindings_saved", "bindings_refreshed", "bindings", "clients", "bytes_received", "found_age_ms_sum"} {
			if name == "bytes_received" && after[name] > before[name] { // those of the questions
				continue
			}
			if after[name] != before[name] {
				t.Errorf("%s was %d, and is %d", name, before[name], after[name])
			}
		}
	}
	say(operator, string(proto.AppendAdmin(nil, proto.AdminList, "bindings")))
	list := &messages{t: t, fd: operator}
	list.next()
	if age, err := strconv.Atoi(list.next()["age"]); err != nil || age < 20 {
		t.Errorf("the binding's age is %d, %v", age, err)
	}
}

// A list does not go on in another process: its client sees an end too early.
func TestListIsCutByTakingOver(t *testing.T) {
	r := run(t, handsOver)
	client, lister := r.dial(), r.dial()
	defer unix.Close(client)
	defer unix.Close(lister)
	const many = 1000 // and 1 MB, more than the buffers on the way
	for i := range many {
		say(client, fmt.Sprintf("request\x00save_dest\x00ttl\x0050\x00label\x00d%d\x00property\x00%s\x00label\x00e\x00\x00", i, strings.Repeat("p", 1000)))
		expect(t, client, "status\x000\x00\x00")
	}
	say(lister, string(proto.AppendAdmin(nil, proto.AdminList, "bindings")))
	expect(t, lister, "status\x000\x00\x00")
	r.succeed()
	got := 0
	for piece := make([]byte, 1<<16); ; {
		n, err := read(lister, piece)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		got += n
	}
	if got == 0 || got > many*1000/2 {
		t.Errorf("%d bytes of a list that was cut", got)
	}
	say(client, find("x"))
	expect(t, client, miss)
}
