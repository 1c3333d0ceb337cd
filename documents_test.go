package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/scache/scache/proto"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every number that an operator can see is explained.
func TestCountersAreExplained(t *testing.T) {
	explained := read(t, "docs/OPERATIONS.md")
	row := func(statistic string) string { // of a histogram's many statistics, one for all
		for _, h := range []proto.Histogram{proto.FoundAge, proto.RequestTime} {
			if strings.HasPrefix(statistic, h.Name+"_") {
				return "| `" + h.Name + "_le_N`, `..._le_inf`, `..._sum` |"
			}
		}
		return "| `" + statistic + "` |"
	}
	for _, s := range proto.Statistics {
		if !strings.Contains(explained, row(s.Name)) {
			t.Errorf("%s is not in docs/OPERATIONS.md", s.Name)
		}
	}
}

// Every test that README names as a witness exists.
func TestWitnessesExist(t *testing.T) {
	var tests strings.Builder
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, "_test.go") {
			tests.WriteString(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(read(t, "README.md"), -1)
	if len(named) < 20 {
		t.Errorf("README names %d tests only", len(named))
	}
	for _, name := range named {
		if !strings.Contains(tests.String(), "func "+name+"(") {
			t.Errorf("README speaks of %s, which does not exist", name)
		}
	}
}
