package server

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/handover"
	"github.com/scache/scache/proto"
)

// predecessorSays has a server take over from one that says these records behind its greeting, and returns what comes
// of it, and of the predecessor's wait for the answer.
func predecessorSays(t *testing.T, say func(c *handover.Channel) error) (err, answer error) {
	t.Helper()
	return predecessorBegins(t, func(c *handover.Channel) error {
		return errors.Join(c.Send(&handover.Record{Hello: &handover.Hello{Version: 1, Started: monotonic()}}), say(c))
	})
}

// predecessorBegins is predecessorSays without a greeting.
func predecessorBegins(t *testing.T, say func(c *handover.Channel) error) (err, answer error) {
	t.Helper()
	ours, theirs := socketPair(t)
	s, err := New(Config{Log: &logbook{}, TTLLimit: time.Minute, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1}, Cache{Name: "before"})
	if err != nil {
		t.Fatal(err)
	}
	channel := handover.NewChannel(theirs)
	answered := make(chan error, 1)
	go func() {
		err := channel.SendMessage([]byte(proto.Announcement))
		_, asked := channel.ReceiveMessage()
		err = errors.Join(err, asked, channel.SendMessage(proto.AppendStatus(nil, proto.OK)), say(channel), channel.Flush())
		channel.StandStill()
		answered <- errors.Join(err, channel.ReceiveAnswer())
	}()
	p, err := s.TakeOver(ours, "")
	if err != nil {
		return err, nil
	}
	confirmed := make(chan error)
	go func() { confirmed <- p.Confirm() }()
	answer = <-answered
	channel.Retract()
	<-confirmed
	return nil, answer
}

// A kind of record that is not known is passed over, also in front of the first cache.
func TestUnknownRecordComesFirst(t *testing.T) {
	err, answer := predecessorSays(t, func(c *handover.Channel) error {
		return errors.Join(
			c.Send(&handover.Record{}), // as one looks that is not known
			c.Send(&handover.Record{Cache: &handover.Cache{Name: "before"}}),
			c.Send(&handover.Record{Stopped: &handover.Stopped{StatisticsDue: 1 << 40}}),
			c.Send(&handover.Record{Cache: &handover.Cache{Name: "before"}}),
			c.Send(&handover.Record{End: &handover.End{}}))
	})
	if err != nil || answer != nil {
		t.Errorf("%v, %v", err, answer)
	}
}

// What a hand-over lacks, and what is not for us, is refused.
func TestWrongHandOver(t *testing.T) {
	hello := handover.Record{Hello: &handover.Hello{Version: handover.Version, Started: monotonic()}}
	cache := handover.Record{Cache: &handover.Cache{Name: "before"}}
	stopped := handover.Record{Stopped: &handover.Stopped{StatisticsDue: 1 << 40}}
	for _, test := range []struct {
		want string
		says []handover.Record
	}{
		{"the server does not begin with a greeting", []handover.Record{{}, hello, cache, stopped, cache, {End: &handover.End{}}}},
		{"the server hands over by version", []handover.Record{{Hello: &handover.Hello{Version: handover.Version + 1, Started: monotonic()}}}},
		{"the server's clock is not ours", []handover.Record{{Hello: &handover.Hello{Version: handover.Version, Started: 1 << 62}}}},
		{"what the server sends does not begin with a cache", []handover.Record{hello, stopped, {End: &handover.End{}}}},
		{"the server speaks of {Bindings:1", []handover.Record{hello, cache, stopped, cache, {End: &handover.End{Bindings: 1}}}},
		{"the server speaks of {Bindings:0 Connections:1", []handover.Record{hello, cache, stopped, cache, {End: &handover.End{Connections: 1}}}},
		{"the server speaks of {Bindings:0 Connections:0 Clients:1", []handover.Record{hello, cache, stopped, cache, {End: &handover.End{Clients: 1}}}},
	} {
		err, _ := predecessorBegins(t, func(c *handover.Channel) (err error) {
			for i := range test.says {
				err = errors.Join(err, c.Send(&test.says[i]))
			}
			return err
		})
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
}

// A connection that is gone when the predecessor stands still, and whose last descriptor the successor has,
// may linger for as long as it likes.
func TestGoneConnectionLingers(t *testing.T) {
	connection, peer := lingeringSocket(t)
	defer peer.Close()
	file, err := connection.File()
	if err != nil {
		t.Fatal(err)
	}
	err, answer := predecessorSays(t, func(c *handover.Channel) error {
		err := errors.Join(
			c.Send(&handover.Record{Cache: &handover.Cache{Name: "before"}}),
			c.Send(&handover.Record{Connections: []handover.Connection{{Endpoint: []byte("e"), Deadline: 1 << 40, Serial: 7}}}, int(file.Fd())),
			c.Flush())
		file.Close()
		connection.Close()
		return errors.Join(err,
			c.Send(&handover.Record{Stopped: &handover.Stopped{StatisticsDue: 1 << 40}}),
			c.Send(&handover.Record{Cache: &handover.Cache{Name: "before", Gone: []uint64{7}}}),
			c.Send(&handover.Record{End: &handover.End{}}))
	})
	if err != nil || answer != nil {
		t.Errorf("%v, %v", err, answer)
	}
}

// Descriptors that come where an answer is due are closed.
func TestDescriptorsInPlaceOfAnswer(t *testing.T) {
	r := run(t, handsOver)
	begin := len(descriptorsOfProcess(t))
	for range 3 {
		lines := r.log.length()
		fd := r.connect()
		channel := askToSucceed(t, fd)
		receiveAll(t, channel)
		sendRights(t, fd, "\x01", fd, fd, fd)
		unix.Shutdown(fd, unix.SHUT_WR)
		awaitEnd(t, fd)
		channel.Discard()
		unix.Close(fd)
		waitFor(t, func() bool { return strings.Contains(r.log.from(lines), "has not taken over") })
	}
	waitFor(t, func() bool { return len(descriptorsOfProcess(t)) <= begin })
}

// While one process is about to take over, another one may not.
func TestTakeOverByTwo(t *testing.T) {
	old := newBusyServer(t, Config{Log: discard{}, TTLLimit: time.Hour, StatusUpdateTime: time.Hour, IPCTimeout: time.Hour, Parent: -1, HandOver: true})
	defer old.finish()
	ask := func() (client *conn, far int) {
		client, far = old.connect(t)
		say(far, string(proto.AppendTakeOver(nil)))
		client.Ready(client.fd, false)
		old.continueSuccessions()
		return client, far
	}
	first, far := ask()
	defer unix.Close(far)
	if first.transfer() == nil {
		t.Fatal("refused")
	}
	second, refused := ask()
	second.Ready(second.fd, false)
	reply := make([]byte, 1000)
	if n, err := read(refused, reply); err != nil || second.transfer() != nil || !strings.Contains(string(reply[:n]), "another process is about to") {
		t.Errorf("it hears %q, %v", reply[:n], err)
	}
	first.close()
	if old.transfer != nil {
		t.Error("it is about to take over still")
	}
	if third, far := ask(); third.transfer() == nil {
		t.Error("refused when the other one had gone")
	} else {
		unix.Close(far)
	}
	unix.Close(refused)
}

// What was handed over is no concern of the predecessor's any longer.
func TestPredecessorIsDone(t *testing.T) {
	r := run(t, func(c *Config) { handsOver(c); c.ClientMemory = 64 << 20 })
	client := r.dial()
	defer unix.Close(client)
	say(client, find(strings.Repeat("x", 1<<16))[:1<<16])
	operator := r.dial()
	defer unix.Close(operator)
	for ask(t, operator, proto.AdminStatistics)["client_memory_bytes"] == "0" {
		time.Sleep(time.Millisecond)
	}
	r.succeed()
	r.config.ClientMemory = 1
	if !r.relieve() || r.held != 0 || r.report.Pending() {
		t.Errorf("it keeps %d bytes, reports statistics: %v", r.held, r.report.Pending())
	}
}
