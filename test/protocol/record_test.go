package protocol

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/internal/master"
)

// Transcripts of conversations with Postfix's daemon. They are recorded by
//
//	go test ./test/protocol -run Record -record
//
// and replayed to the daemon under test by TestTranscripts, and to the session
// alone by the tests of package server. README in their directory has the format.
const transcripts = "../../server/testdata/transcripts"

const transcriptsReadme = `These are conversations with the scache(8) daemon of Postfix 3.7.11, recorded by

	go test ./test/protocol -run Record -record

and written here in the order in which they took place, a line a piece:

	# text           a comment; the first line says what the conversation shows
	> "bytes"        the client sends bytes, in one write
	> fd 1           the client sends descriptor number 1, on one zero byte
	< "bytes"        the server has sent these bytes by now, and none besides
	< fd 1           the server sends the descriptor that was number 1, on one zero byte

Bytes are quoted as in Go, but for \0, which is always one NUL, whatever follows.
So strconv.Unquote(strings.ReplaceAll(quoted, "\\0", "\\x00")) gives them; no
text holds a backslash of its own. Where lines of the client follow each other
the server is silent between them. Each conversation has a daemon of its own,
with an empty cache and connection_cache_ttl_limit = 1h, and ends in step: with
the client's next word a request.
`

func quote(s string) string { return strings.ReplaceAll(strconv.QuoteToASCII(s), `\x00`, `\0`) }

func unquote(s string) (string, error) {
	return strconv.Unquote(strings.ReplaceAll(s, `\0`, `\x00`))
}

func TestRecord(t *testing.T) {
	if !*record {
		t.Skip("nothing is recorded without -record")
	}
	if err := os.MkdirAll(transcripts, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(transcripts, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("README", transcriptsReadme)
	for _, s := range scripts {
		write(s.name+".txt", "# "+s.shows+" (recorded from Postfix 3.7.11)\n"+s.record(t))
	}
}

// record plays the script to Postfix's daemon and returns what was said. What
// the server has to say is over when it has been silent for a while.
func (s script) record(t *testing.T) string {
	d := startWith(t, master.Config{
		Binary: stockScache(t), Unprivileged: true, Chroot: true,
		Args: []string{"-o", "connection_cache_ttl_limit=1h"},
	})
	var out strings.Builder
	var pairs []*pair
	c := d.dialOnly(t)
	listen := func() {
		var err error
		for err == nil {
			err = c.fill(100 * time.Millisecond)
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		for len(c.in) > 0 {
			n := len(c.in)
			if len(c.fds) > 0 {
				n = c.fds[0].at - c.seen
			}
			if n > 0 {
				fmt.Fprintf(&out, "< %s\n", quote(string(c.in[:n])))
				c.skip(n)
				continue
			}
			fmt.Fprintf(&out, "< fd %d\n", whose(t, pairs, c.wantFD()))
		}
	}
	listen()
	for _, send := range s.sends {
		switch send := send.(type) {
		case string:
			fmt.Fprintf(&out, "> %s\n", quote(send))
			c.send(send)
		case int:
			for len(pairs) < send {
				pairs = append(pairs, newPair(t))
			}
			fmt.Fprintf(&out, "> fd %d\n", send)
			c.sendFD("\x00", pairs[send-1].near)
		}
		c.taken()
		listen()
	}
	c.inStep()
	return out.String()
}

// whose returns the number of the pair that the descriptor belongs to.
func whose(t testing.TB, pairs []*pair, fd int) int {
	t.Helper()
	id, err := identify(fd)
	closeAll([]int{fd})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range pairs {
		if p.id == id {
			return i + 1
		}
	}
	t.Fatal("a descriptor nobody has saved")
	return 0
}

// TestTranscripts replays what was recorded.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(transcripts, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := start(t)
			c := d.dialOnly(t)
			var pairs []*pair
			lines := bufio.NewScanner(bytes.NewReader(text))
			lines.Buffer(nil, 1<<20)
			for n := 1; lines.Scan(); n++ {
				if err := c.replay(lines.Text(), &pairs); err != nil {
					t.Fatalf("%s:%d: %v", file, n, err)
				}
			}
			c.inStep()
		})
	}
}

func (c *client) replay(line string, pairs *[]*pair) error {
	c.t.Helper()
	if strings.HasPrefix(line, "#") {
		return nil
	}
	direction, what, _ := strings.Cut(line, " ")
	number, isFD := strings.CutPrefix(what, "fd ")
	if isFD {
		n, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		for len(*pairs) < n {
			*pairs = append(*pairs, newPair(c.t))
		}
		if direction == ">" {
			c.sendFD("\x00", (*pairs)[n-1].near)
		} else if have := whose(c.t, *pairs, c.wantFD()); have != n {
			return fmt.Errorf("descriptor %d, not %d", have, n)
		}
		return nil
	}
	s, err := unquote(what)
	if err != nil {
		return fmt.Errorf("%q: %w", what, err)
	}
	if direction == ">" {
		c.send(s)
		c.taken()
		return nil
	}
	return c.tryWant(s)
}
