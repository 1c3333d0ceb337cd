package store

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// One save drops no more than a thousand others for its texts, and the next ones go on from there.
func TestLongTextsTakeTurns(t *testing.T) {
	s := New(func(int, Reason) {})
	const many = 3 * dropsForText
	for i := range many {
		if !s.SaveDestination(fmt.Append(nil, i), nil, []byte("e"), 10) {
			t.Fatal("no room")
		}
	}
	s.Limits.Text = s.Size().Text
	long := bytes.Repeat([]byte("x"), s.Limits.Text/2)
	saves := 0
	for before := 0; !s.SaveDestination(long, nil, []byte("e"), 20); saves++ {
		if s.Displaced() != before+dropsForText {
			t.Fatalf("%d were dropped for one save", s.Displaced()-before)
		}
		before = s.Displaced()
	}
	if saves == 0 {
		t.Error("the first save was enough")
	}
}

// What a save drops for its texts is told, so that it can be charged, and so is the putting right of
// timers.
func TestEffort(t *testing.T) {
	s := New(func(int, Reason) {})
	const many = 100
	save := func(name string, deadline Tick) bool {
		return s.SaveDestination([]byte(name), nil, []byte("e"), deadline)
	}
	for i := range many {
		save(fmt.Sprintf("%04d", i), 10)
	}
	if n := s.Effort(); n != 0 {
		t.Errorf("saving: %d", n)
	}
	s.Limits.Text = s.Size().Text
	save(strings.Repeat("x", 39), 40) // and the endpoint
	if n := s.Effort(); n != 10*dropEffort {
		t.Errorf("ten were dropped: %d", n)
	}
	s.Limits.Text = 0
	for i := range many {
		save(fmt.Sprintf("%04d", i), 30)
	}
	s.Limits.Text = s.Size().Text
	s.Effort()
	save("yyyy", 30)
	if n := s.Effort(); n < dropEffort+resetEffort || n%dropEffort == 0 {
		t.Errorf("one was dropped after others were refreshed: %d", n)
	}
	s.FindDestination([]byte("yyyy"))
	if n := s.Effort(); n != 1 {
		t.Errorf("a binding was passed over: %d", n)
	}
}

// What makes room is the earliest of those that were looked at, not the last one.
func TestRefreshedGoLast(t *testing.T) {
	s := New(func(int, Reason) {})
	s.Limits.Bindings = 100
	save := func(i int, deadline Tick) { s.SaveDestination(fmt.Append(nil, i), nil, []byte("e"), deadline) }
	for i := range 100 {
		save(i, 2000)
	}
	for i := range 64 {
		save(i, 50000)
	}
	save(100, 2000)
	for i := range 64 {
		if _, ok := s.FirstBinding(fmt.Append(nil, i)); !ok {
			t.Errorf("%d was dropped, and others would have expired before", i)
		}
	}
}

// A save that has no room at all drops nothing.
func TestRefusedSaveDropsNothing(t *testing.T) {
	s := New(func(int, Reason) {})
	s.Limits = Limits{PerDestination: 1, Bindings: 1, Text: 100}
	s.SaveDestination([]byte("d"), nil, []byte("e"), 10)
	if s.SaveDestination([]byte("d"), bytes.Repeat([]byte("x"), 200), []byte("f"), 10) {
		t.Fatal("saved")
	}
	if _, ok := s.FirstBinding([]byte("d")); !ok {
		t.Error("the binding is gone")
	}
}

// The records of long texts keep no room for them that nobody counts.
func TestBuffersFitTheirTexts(t *testing.T) {
	s := New(func(int, Reason) {})
	s.Limits.PerDestination = 10
	for _, size := range []int{1000, 1} {
		text := bytes.Repeat([]byte("x"), size)
		for i := range 10 {
			s.SaveDestination([]byte("d"), text, fmt.Appendf(nil, "%d%s", i, text), 10)
			c := s.Prepare(fmt.Appendf(nil, "%d%s", i, text), text)
			s.Save(c, 3+i, 5)
		}
		s.Advance(5) // the connections go
	}
	for at := range s.bindings.all() {
		for _, buffer := range [][]byte{at.binding.property, at.binding.endpoint.label} {
			if cap(buffer) > 100 {
				t.Fatalf("%d bytes for %d", cap(buffer), len(buffer))
			}
		}
	}
}
