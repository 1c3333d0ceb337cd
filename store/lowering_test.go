package store

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// exceeds returns what is above limits, if anything.
func (s *Store) exceeds(l Limits) string {
	size := s.Size()
	if over(l.Connections, size.Connections) || over(l.Bindings, size.Bindings) || over(l.Text, size.Text) {
		return fmt.Sprintf("%+v", size)
	}
	for e := range s.endpoints.all() {
		if over(l.PerEndpoint, int(e.connections)) {
			return fmt.Sprintf("%d connections of an endpoint", e.connections)
		}
	}
	for d := range s.destinations.all() {
		if over(l.PerDestination, d.bindings) {
			return fmt.Sprintf("%d bindings of a destination", d.bindings)
		}
	}
	return ""
}

// Lower limits come into force while others go on saving, and never in a portion larger
// than asked for.
func TestLowering(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		closed := 0
		s := New(func(_ int, why Reason) {
			if closed++; why != Evicted {
				t.Fatalf("closed: %v", why)
			}
		})
		fd := 2
		name := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		deadline := rapid.IntRange(1, 1000)
		save := func() {
			fd++
			s.Save(s.Prepare([]byte(name.Draw(t, "endpoint")), []byte("property")), fd, Tick(deadline.Draw(t, "deadline")))
			s.SaveDestination([]byte(name.Draw(t, "destination")), fmt.Append(nil, fd), []byte("e"), Tick(deadline.Draw(t, "deadline")))
		}
		for range rapid.IntRange(0, 60).Draw(t, "saved") {
			save()
		}
		limit := rapid.SampledFrom([]int{0, 1, 2, 5, 10, 100})
		wanted := Limits{limit.Draw(t, "connections"), limit.Draw(t, "per endpoint"), limit.Draw(t, "bindings"), limit.Draw(t, "per destination"),
			rapid.SampledFrom([]int{0, 50, 500}).Draw(t, "text")}
		l, portion := s.Lower(wanted), rapid.IntRange(1, 7).Draw(t, "portion")
		meanwhile := rapid.IntRange(0, 20).Draw(t, "meanwhile")
		for rounds := 0; ; rounds++ {
			before := closed + s.Displaced()
			done := s.Continue(l, portion)
			if dropped := closed + s.Displaced() - before; dropped > portion {
				t.Fatalf("%d dropped at a time, not %d at most", dropped, portion)
			}
			if done {
				break
			}
			if rounds > 1000 {
				t.Fatal("it comes to no end")
			}
			if rounds < meanwhile {
				save()
			}
		}
		if what := s.exceeds(wanted); what != "" {
			t.Fatalf("%s with %+v", what, wanted)
		}
		save()
		if s.Limits != wanted {
			t.Fatalf("%+v are in force", s.Limits)
		}
		if what := s.exceeds(wanted); what != "" {
			t.Fatalf("%s with %+v", what, wanted)
		}
	})
}

// The limit of texts comes into force though connections that are outside have more.
func TestLoweringWithTextsOutside(t *testing.T) {
	s := New(func(int, Reason) {})
	s.Prepare([]byte("endpoint"), []byte("property"))
	wanted := Limits{Text: 10}
	if l := s.Lower(wanted); !s.Continue(l, 1) || s.Limits != wanted {
		t.Errorf("%+v are in force", s.Limits)
	}
}

// An endpoint with a limit of its own is left alone.
func TestLoweringPassesOverOwnLimits(t *testing.T) {
	s := New(func(int, Reason) {})
	for fd := range 20 {
		label := [...]string{"own", "other"}[fd%2]
		c := s.Prepare([]byte(label), nil)
		if label == "own" {
			s.Govern(c, &Terms{PerEndpoint: -1})
		}
		s.Save(c, 3+fd, 100)
	}
	for l := s.Lower(Limits{PerEndpoint: 2}); !s.Continue(l, 3); {
	}
	for label, want := range map[string]int32{"own": 10, "other": 2} {
		if have := s.lookupEndpoint([]byte(label)).connections; have != want {
			t.Errorf("%s: %d connections, want %d", label, have, want)
		}
	}
}
