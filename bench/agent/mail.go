package agent

import (
	"strings"

	"github.com/scache/scache/bench/sink"
)

// mailTexts is what a client and the sink say to each other. The client pipelines
// as smtp(8) does: envelope and DATA in one write, then the message.
type mailTexts struct {
	greeting, hello, ok, dataReply, bye   []byte
	ehlo, reset, envelope, message, leave []byte
}

func newMailTexts(size int) mailTexts {
	line := strings.Repeat("m", 70) + "\r\n"
	body := strings.Repeat(line, size/len(line))
	return mailTexts{
		greeting:  []byte(sink.Greeting),
		hello:     []byte(sink.Hello),
		ok:        []byte(sink.OK),
		dataReply: []byte(sink.OK + sink.OK + sink.Go),
		bye:       []byte(sink.Bye),
		ehlo:      []byte("EHLO agent.example\r\n"),
		reset:     []byte("RSET\r\n"),
		envelope:  []byte("MAIL FROM:<from@example.com>\r\nRCPT TO:<to@example.net>\r\nDATA\r\n"),
		message:   []byte("Subject: bench\r\n\r\n" + body + ".\r\n"),
		leave:     []byte("QUIT\r\n"),
	}
}

// connectMail opens a connection, to begin a delivery or to save it.
func (t *thread) connectMail(c *client) error {
	if err := t.dial(c); err != nil {
		return err
	}
	c.state = wantsGreeting
	return t.poller.watch(c.held, key{c.index(t), 1})
}

// resumeMail begins a delivery over a connection that was found.
func (t *thread) resumeMail(c *client) error {
	if err := t.poller.watch(c.held, key{c.index(t), 1}); err != nil {
		return err
	}
	return t.say(c, t.mail.reset, wantsReset)
}

func (t *thread) say(c *client, text []byte, reply state) error {
	c.state = reply
	return t.socket.send(c.held, text)
}

// heardMail receives from the sink.
func (t *thread) heardMail(c *client) error {
	n, err := t.socket.receive(c.held, t.buffer[:])
	if n == 0 {
		return err
	}
	if _, whole, err := t.match(c, t.buffer[:n]); !whole {
		return err
	}
	switch c.state {
	case wantsGreeting:
		if t.run.Workload != Deliver {
			if err := t.poller.unwatch(c.held); err != nil {
				return err
			}
			return t.start(c)
		}
		return t.say(c, t.mail.ehlo, wantsHello)
	case wantsHello, wantsReset:
		return t.say(c, t.mail.envelope, wantsGo)
	case wantsGo:
		return t.say(c, t.mail.message, wantsTaken)
	case wantsTaken:
		t.counts.Delivered++
		if t.config.Hit < 1 && t.random.Float64() >= t.config.Hit {
			return t.say(c, t.mail.leave, wantsBye)
		}
		// The kernel's registration would go along with the open file.
		if err := t.poller.unwatch(c.held); err != nil {
			return err
		}
		return t.bind(c, t.endpoint(c.number))
	}
	t.drop(c)
	return t.finished(c)
}
