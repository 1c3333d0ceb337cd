package policy

import (
	"os"
	"strings"
	"testing"
)

// The files that the documentation shows can be read, and have no rule that is odd.
func TestDocumentedExamples(t *testing.T) {
	for _, test := range []struct{ file, begin, end string }{
		{"../README.md", "# /etc/postfix/scache_policy", "```"},
		{"../man/scache.8", "# Two idle connections", ".Ed"},
	} {
		text, err := os.ReadFile(test.file)
		if err != nil {
			t.Fatal(err)
		}
		_, after, found := strings.Cut(string(text), test.begin)
		example, _, ended := strings.Cut(after, test.end)
		if !found || !ended {
			t.Fatalf("%s: no example", test.file)
		}
		p := parse(t, "#"+example)
		if len(p.Rules) != 5 || len(p.Warnings(30e9)) > 0 {
			t.Errorf("%s: %d rules, %q", test.file, len(p.Rules), p.Warnings(30e9))
		}
	}
}
