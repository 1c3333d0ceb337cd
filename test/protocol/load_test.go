package protocol

import (
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// PROTOCOL.md, "The process": under load.

// together runs f for so many clients at once. A failing client ends its own
// goroutine only.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func TestEachClientGetsItsOwnBack(t *testing.T) {
	t.Parallel()
	d := start(t)
	const clients = 500
	all := make([]*client, clients)
	pairs := newPairs(t, clients)
	together(clients, func(i int) {
		c := d.dial()
		all[i] = c
		name := fmt.Sprint(i)
		for range 3 {
			c.bind("1000", "D"+name, "DP"+name, "E"+name)
			c.save("1000", "E"+name, "EP"+name, pairs[i].near)
			c.wantDest("D"+name, "DP"+name, "EP"+name, pairs[i])
			c.save("1000", "E"+name, "EP"+name, pairs[i].near)
			c.wantEndp("E"+name, "EP"+name, pairs[i])
			c.wantNoDest("D" + name)
		}
	})
	for _, c := range all {
		if c != nil {
			c.inStep() // all of them are connected at once
		}
	}
}

func TestClientsRaceForConnections(t *testing.T) {
	t.Parallel()
	d := start(t)
	const n = 50
	for round := range 5 {
		c := d.dial()
		pairs := newPairs(t, n)
		byID := map[fileID]int{}
		for i, p := range pairs {
			c.save("1000", "E", prop(i), p.near)
			byID[p.id] = i
		}
		clients := make([]*client, n)
		for i := range clients {
			clients[i] = d.dial()
		}
		var mu sync.Mutex
		got := map[int]int{}
		together(n, func(i int) {
			name, fd := clients[i].find("E")
			if fd < 0 {
				t.Error("a client has found nothing")
				return
			}
			defer unix.Close(fd)
			id, _ := identify(fd)
			which, ok := byID[id]
			if !ok || name != prop(which) {
				t.Errorf("property %q came with connection %d", name, which)
			}
			mu.Lock()
			defer mu.Unlock()
			got[which]++
		})
		for i := range pairs {
			if got[i] != 1 {
				t.Errorf("round %d: connection %d was found %d times", round, i, got[i])
			}
		}
		c.wantNoEndp("E")
	}
}

// Savers and finders at once: nothing is lost, nothing is found twice.
func TestSaversAndFinders(t *testing.T) {
	t.Parallel()
	d := start(t)
	const savers, each = 20, 50
	pairs := make([][]*pair, savers)
	for i := range pairs {
		pairs[i] = newPairs(t, each)
	}
	var mu sync.Mutex
	found := map[fileID]int{}
	count := 0
	together(2*savers, func(i int) {
		c := d.dial()
		if i%2 == 0 {
			for n, p := range pairs[i/2] {
				c.save("1000", fmt.Sprint("E", n%7), prop(n), p.near)
			}
			return
		}
		for n := 0; ; n++ {
			_, fd := c.find(fmt.Sprint("E", n%7))
			mu.Lock()
			if fd >= 0 {
				id, _ := identify(fd)
				found[id]++
				count++
			}
			done := count == savers*each || t.Failed()
			mu.Unlock()
			if fd >= 0 {
				unix.Close(fd)
			}
			if done {
				return
			}
		}
	})
	for _, some := range pairs {
		for _, p := range some {
			if found[p.id] != 1 {
				t.Fatalf("a connection was found %d times", found[p.id])
			}
		}
	}
}
