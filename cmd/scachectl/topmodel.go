package main

import (
	"context"
	"slices"
	"time"

	tea "github.com/charmbracelet/bubbletea"
)

// top is the state of the live screen. Bubbletea calls Update for what happens, and
// prints what View returns; both in one goroutine. The feed is used by the one
// command that is under way.
type top struct {
	screen   screen
	feed     *feed
	interval time.Duration

	last, now sample
	rates     rates
	measured  bool      // rates are of the last interval
	ratios    []float64 // hit ratios of the last intervals; negative: there was no look-up
	trouble   error     // why there is no newer sample

	sortBy  int // a column
	reverse bool
	frozen  bool // what is shown stays
	offset  int  // of the first destination shown

	width, height int
}

// sortAtFirst is the column of look-ups.
var sortAtFirst = slices.IndexFunc(columns, func(c column) bool { return c.key == "l" })

// ratiosKept is how many intervals the hit ratio's line of bars has at most.
const ratiosKept = 240

// tick says that it is time to ask; answer is what came of it.
type (
	tick   struct{}
	answer struct {
		sample sample
		err    error
	}
)

func (t *top) Init() tea.Cmd { return t.wait() }

func (t *top) wait() tea.Cmd {
	return tea.Tick(t.interval, func(time.Time) tea.Msg { return tick{} })
}

func (t *top) ask() tea.Msg {
	s, err := t.feed.read(context.Background())
	return answer{s, err}
}

func (t *top) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		t.width, t.height = msg.Width, msg.Height
	case tick:
		return t, t.ask
	case answer:
		t.take(msg)
		return t, t.wait()
	case tea.KeyMsg:
		return t, t.key(msg.String())
	}
	return t, nil
}

// take makes an answer the present.
func (t *top) take(a answer) {
	if t.trouble = a.err; a.err != nil || t.frozen {
		return
	}
	t.last, t.now = t.now, a.sample
	t.scroll(0)
	if t.rates, t.measured = ratesBetween(t.last.statistics, t.now.statistics); !t.measured {
		return
	}
	ratio, ok := t.rates.hitRatio()
	if !ok {
		ratio = -1
	}
	t.ratios = append(t.ratios, ratio)
	t.ratios = t.ratios[max(0, len(t.ratios)-ratiosKept):]
}

func (t *top) key(key string) tea.Cmd {
	switch key {
	case "q", "ctrl+c", "esc":
		return tea.Quit
	case "r":
		t.reverse = !t.reverse
	case "<", "left":
		t.sort((t.sortBy + len(columns) - 1) % len(columns))
	case ">", "right":
		t.sort((t.sortBy + 1) % len(columns))
	case " ":
		t.frozen = !t.frozen
	case "up":
		t.scroll(-1)
	case "down":
		t.scroll(1)
	case "home":
		t.offset = 0
	default:
		for i, c := range columns {
			if c.key == key {
				t.sort(i)
			}
		}
	}
	return nil
}

// scroll moves what is shown by so many destinations, as far as there are any.
func (t *top) scroll(by int) {
	t.offset = max(0, min(t.offset+by, len(t.now.destinations)-1))
}

func (t *top) sort(column int) { t.sortBy, t.reverse, t.offset = column, false, 0 }
