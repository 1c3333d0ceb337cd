package protocol

import (
	"fmt"
	"strings"
	"testing"
)

// PROTOCOL.md, "Framing": many requests in one write.

// All requests of one write are answered, in order.
func TestPipelining(t *testing.T) {
	t.Parallel()
	better(t, "stock answers only the first request of a write")
	d := start(t)
	c := d.dial()
	c.send(findEndp("x") + findDest("x") + saveDest("9", "D", "DP", "E") + "\x00" + dummy +
		message("request", "none") + saveDest("0", "D", "DP", "E") + message("request", "find_endp") + findEndp("y"))
	c.want(endpMiss + destMiss + statusOK + statusBad + statusBad + endpBad + endpMiss)
	c.inStep()

	// The last of them may be a save_endp.
	p := newPair(t)
	c.send(findEndp("x") + findDest("x") + saveEndp("100", "E", "EP"))
	c.want(endpMiss + destMiss + dummy)
	c.sendFD("\x00", p.near)
	c.want(statusOK)

	// A find in mid-stream, without its dummies, holds up what follows.
	c.send(findDest("x") + findEndp("E"))
	c.want(destMiss + endpHit("EP"))
	p.wantBack(t, c.take())
	c.inStep()
}

// A find may have both its dummies in the same write, and another find behind.
func TestPipelinedFinds(t *testing.T) {
	t.Parallel()
	better(t, "stock answers only the first request of a write")
	d := start(t)
	c := d.dial()
	pairs := newPairs(t, 50)
	var requests strings.Builder
	c.bind("100", "D", "DP", "E")
	for i, p := range pairs {
		c.save("100", "E", prop(i), p.near)
		if i%2 == 0 {
			requests.WriteString(findEndp("E") + dummy + dummy)
		} else {
			requests.WriteString(findDest("D") + dummy + dummy)
		}
	}
	c.send(requests.String() + findEndp("E") + findDest("D"))
	for i, p := range pairs {
		if i%2 == 0 {
			c.want(endpHit(prop(i)))
		} else {
			c.want(destHit("DP", prop(i)))
		}
		p.wantBack(t, c.wantFD())
	}
	c.want(endpMiss + destMiss)
	c.inStep()
}

// A pipeline far longer than any buffer, its messages of all lengths, so that
// buffers end at every place of a message.
func TestLongPipeline(t *testing.T) {
	t.Parallel()
	better(t, "stock answers only the first request of a write")
	d := start(t)
	for _, unit := range []int{1, 7, 61, 1021, 65521} {
		t.Run(fmt.Sprint(unit), func(t *testing.T) {
			t.Parallel()
			c := d.dialFor(t)
			p := newPair(t)
			label := fmt.Sprint("E", unit)
			count := min(2000, 4<<20/unit/3+1)
			var requests strings.Builder
			var replies []string
			for i := range count {
				name := strings.Repeat("n", i%3*unit+i%17)
				switch i % 3 {
				case 0:
					requests.WriteString(findEndp(name + "none"))
					replies = append(replies, endpMiss)
				case 1:
					requests.WriteString(saveDest("100", label+name, name, label))
					replies = append(replies, statusOK)
				case 2:
					requests.WriteString(message("request", "find_dest", name+"none", ""))
					replies = append(replies, destBad)
				}
			}
			c.save("100", label, "EP", p.near)
			requests.WriteString(findEndp(label) + dummy + dummy + findEndp(label))
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.send(requests.String())
			}()
			for i, reply := range replies {
				if err := c.tryWant(reply); err != nil {
					t.Fatalf("reply %d: %v", i, err)
				}
			}
			c.want(endpHit("EP"))
			p.wantBack(t, c.wantFD())
			c.want(endpMiss)
			<-done
			c.inStep()
		})
	}
}

// The same pipeline, cut at every byte.
func TestPipelineCutAnywhere(t *testing.T) {
	t.Parallel()
	better(t, "stock answers only the first request of a write")
	d := start(t)
	c := d.dial()
	p := newPair(t)
	c.bind("100", "D", "DP", "E")
	pipeline := dummy + findDest("D") + dummy + dummy + "\x00" + findEndp("E") + dummy
	for cut := range len(pipeline) {
		c.save("100", "E", "EP", p.near)
		c.send(pipeline[:cut])
		c.taken()
		c.send(pipeline[cut:])
		c.want(destHit("DP", "EP"))
		p.wantBack(t, c.wantFD())
		c.want(endpMiss)
	}
	c.inStep()
}

func TestHalfClosedAfterAPipeline(t *testing.T) {
	t.Parallel()
	better(t, "stock answers only the first request of a write")
	d := start(t)
	p := newPair(t)
	c := d.dial()
	c.save("100", "E", "EP", p.near)
	c.send(findDest("x") + findEndp("E") + dummy + dummy + findEndp("E"))
	c.shutdown()
	c.want(destMiss + endpHit("EP"))
	p.wantBack(t, c.wantFD())
	c.want(endpMiss)
	c.wantEOF()
}
