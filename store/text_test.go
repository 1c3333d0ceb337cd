package store

import (
	"bytes"
	"fmt"
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
