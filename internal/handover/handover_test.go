package handover

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return fds[0], fds[1]
}

// eventfds returns descriptors, each of an open file of its own with its index in it.
func eventfds(t *testing.T, n int) (fds []int) {
	t.Helper()
	for i := range n {
		fd, err := unix.Eventfd(uint(i+1), unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		fds = append(fds, fd)
	}
	return fds
}

// index reads which of the eventfds a descriptor is, and closes it.
func index(t *testing.T, fd int) int {
	t.Helper()
	defer unix.Close(fd)
	var count [8]byte
	if _, err := unix.Read(fd, count[:]); err != nil {
		t.Fatal(err)
	}
	return int(count[0]) + int(count[1])<<8 - 1
}

// Each record comes with its own descriptors, however many there are, and texts of any size.
func TestDescriptorsStayWithTheirRecords(t *testing.T) {
	a, b := pair(t)
	const records = 300
	fds := eventfds(t, 3*records)
	sent := make(chan error, 1)
	go func() {
		channel := NewChannel(a)
		var err error
		for i := range records {
			text := bytes.Repeat([]byte{byte(i)}, i*i)
			err = errors.Join(err, channel.Send(&Record{Client: &Client{Input: text}}, fds[3*i:3*i+i%4]...))
		}
		sent <- errors.Join(err, channel.Flush())
	}()
	channel := NewChannel(b)
	for i := range records {
		r, descriptors, err := channel.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if r.Client == nil || !bytes.Equal(r.Client.Input, bytes.Repeat([]byte{byte(i)}, i*i)) || len(descriptors) != i%4 {
			t.Fatalf("record %d: %d descriptors, %.100v", i, len(descriptors), r.Client)
		}
		for j, fd := range descriptors {
			if got := index(t, fd); got != 3*i+j {
				t.Errorf("record %d, descriptor %d is number %d", i, j, got)
			}
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	unix.Shutdown(a, unix.SHUT_WR)
	if _, _, err := channel.Receive(); err != io.EOF {
		t.Errorf("%v, want the end of file", err)
	}
}

// newerRecord is what a later version may send: a kind and a field that we do not know, and less
// of what we do know.
type newerRecord struct {
	Descriptors int
	Cache       *newerCache
	Novelty     *struct{ Text string }
	End         *End
}

type newerCache struct {
	Colour  string
	Name    string
	Palette map[string][]int
}

// What a later version knows and we do not is passed over, and its descriptors can be closed.
func TestNewerVersion(t *testing.T) {
	a, b := pair(t)
	fds := eventfds(t, 3)
	sender, receiver := NewChannel(a), NewChannel(b)
	for _, r := range []newerRecord{
		{Descriptors: 1, Cache: &newerCache{Colour: "green", Name: "x", Palette: map[string][]int{"y": {1, 2}}}},
		{Descriptors: 1, Novelty: &struct{ Text string }{"new"}},
		{Descriptors: 1, End: &End{Clients: 7}},
	} {
		if err := sender.encoder.Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	sender.rights = fds
	if err := sender.Flush(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []func(Record) bool{
		func(r Record) bool { return r.Cache != nil && r.Cache.Name == "x" && r.Cache.Counters == nil },
		func(r Record) bool { return r.Cache == nil && r.End == nil },
		func(r Record) bool { return r.End != nil && r.End.Clients == 7 },
	} {
		r, descriptors, err := receiver.Receive()
		if err != nil || !want(r) || len(descriptors) != 1 {
			t.Fatalf("record %d: %+v with %d descriptors, %v", i, r, len(descriptors), err)
		}
		if got := index(t, descriptors[0]); got != i {
			t.Errorf("record %d has descriptor %d", i, got)
		}
	}
}

// What is received and not taken is closed, and who sends is known.
func TestDiscard(t *testing.T) {
	a, b := pair(t)
	sender, receiver := NewChannel(a), NewChannel(b)
	if err := receiver.AskCredentials(); err != nil {
		t.Fatal(err)
	}
	if err := sender.encoder.Encode(Record{End: &End{}}); err != nil { // announces no descriptors
		t.Fatal(err)
	}
	sender.rights = eventfds(t, 5)
	before := open(t)
	if err := sender.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, descriptors, err := receiver.Receive(); err != nil || len(descriptors) > 0 {
		t.Fatalf("%d descriptors, %v", len(descriptors), err)
	}
	if now := open(t); now != before+5 {
		t.Errorf("%d descriptors are open, %d before", now, before)
	}
	receiver.Discard()
	if now := open(t); now != before {
		t.Errorf("%d descriptors are open, %d before", now, before)
	}
	if who := receiver.Peer(); who == nil || int(who.Pid) != os.Getpid() || int(who.Uid) != os.Geteuid() {
		t.Errorf("sent by %v", who)
	}
}

// Where there is no room none is reported, whatever signals come: Go's runtime sends some.
func TestNoRoomAmongSignals(t *testing.T) {
	a, _ := pair(t)
	var err error
	for err == nil {
		_, err = unix.SendmsgN(a, make([]byte, 4096), nil, nil, unix.MSG_DONTWAIT)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread, stop, stopped := unix.Gettid(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Tgkill(unix.Getpid(), thread, unix.SIGURG)
			}
		}
	}()
	channel := NewChannel(a)
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		if room, err := channel.Room(); room || err != nil {
			t.Errorf("room: %v, %v", room, err)
			break
		}
	}
	close(stop)
	<-stopped
}

func open(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
