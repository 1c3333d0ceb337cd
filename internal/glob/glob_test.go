package glob

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "a\nb", true}, {"?", "\n", true}, {"?", "", false},
		{"a*c", "abc", true}, {"a*c", "ac", true}, {"a*c", "abcd", false}, {"*b*", "abc", true}, {"*b*", "ac", false},
		{"a*b*c", "aXbYbZc", true}, {"*ab", "aab", true}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"**a", "ba", true},
		{"smtp\nexample.com\n*", "smtp\nexample.com\n25\n", true}, {"*example.com*", "smtp\nmail.example.com\n", true},
		{"*a*a*a*a*a*b", strings.Repeat("a", MaxText), false}, {`\*`, `\a`, true}, {"A", "a", false}, {"a", "A", false},
		{"*", strings.Repeat("a", MaxText), true}, {"*", strings.Repeat("a", MaxText+1), false},
	} {
		if got := New(c.pattern).Match([]byte(c.text)); got != c.want {
			t.Errorf("%q %.30q: %v", c.pattern, c.text, got)
		}
	}
}

// naive is what a pattern means.
func naive(pattern, text string) bool {
	switch {
	case pattern == "":
		return text == ""
	case pattern[0] == '*':
		return naive(pattern[1:], text) || text != "" && naive(pattern, text[1:])
	}
	return text != "" && (pattern[0] == '?' || pattern[0] == text[0]) && naive(pattern[1:], text[1:])
}

func TestAgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*?]{0,8}`).Draw(t, "pattern")
		text := rapid.StringMatching(`[ab]{0,10}`).Draw(t, "text")
		parsed, err := Parse(pattern)
		if err != nil {
			t.Fatal(err)
		}
		want := naive(pattern, text)
		if New(pattern).Match([]byte(text)) != want || parsed.Match([]byte(text)) != want {
			t.Fatalf("%q matches %q: %v is wrong", pattern, text, !want)
		}
	})
}
