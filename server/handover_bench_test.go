package server

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/timerwheel"
)

// BenchmarkTakeOver is how long nobody serves while 9,000 connections go from one server to
// another, both in this process.
func BenchmarkTakeOver(b *testing.B) {
	const connections = 9_000
	config := Config{Log: discard{}, TTLLimit: time.Hour, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1, HandOver: true}
	old, err := New(config, Cache{})
	if err != nil {
		b.Fatal(err)
	}
	file, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	restoring := old.caches[0].store.Restore()
	for i := range connections {
		fd, err := unix.FcntlInt(uintptr(file), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		property := fmt.Sprintf("%064d", i)
		c := restoring.Connection([]byte(fmt.Sprintf("%032d", i)), []byte(property), fd, uint64(i), timerwheel.Tick(1<<20))
		old.caches[0].watch.begin(c)
	}
	restoring.SkipTo(connections)
	for b.Loop() {
		next, err := New(config, Cache{})
		if err != nil {
			b.Fatal(err)
		}
		ours, theirs, err := socketpair()
		if err != nil {
			b.Fatal(err)
		}
		client := newConn(old, old.caches[0], ours)
		client.announce = true
		if err := old.admit(client); err != nil {
			b.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			predecessor, err := next.TakeOver(theirs, "")
			if err == nil {
				err = predecessor.Confirm()
			}
			done <- err
		}()
		for !old.succeeded && client.fd >= 0 {
			client.Ready(ours, false)
			old.continueSuccessions()
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		unix.Close(theirs)
		old = next
	}
}
