// Package glob is patterns with wildcards: * is any text, also none, and ? any one byte.
package glob

import (
	"bytes"
	"fmt"
	"strings"
)

// MaxText is the longest text that a pattern matches, in bytes. What patterns are for, the labels
// and properties of delivery agents, is much shorter; and to match takes time in proportion to the
// lengths of both, multiplied, in which nobody else is served.
const MaxText = 1024

// Pattern is a pattern; the zero one matches the empty text.
type Pattern struct {
	literals []byte // what stands for a wildcard has no meaning
	wild     []byte // for each: 0, '*' or '?'
	fold     bool   // literals are in lower case, and texts are read so
}

// New returns a pattern in which nothing takes the meaning from a wildcard. Upper and lower
// case differ.
func New(pattern string) (p Pattern) {
	for _, c := range []byte(pattern) {
		p.add(c, c == '*' || c == '?')
	}
	return p
}

// Parse reads a pattern in which a backslash takes the meaning from *, ? and itself, and
// \n is a newline. Upper and lower case are the same.
func Parse(pattern string) (p Pattern, err error) {
	p.fold = true
	for i := 0; i < len(pattern); i++ {
		switch c := lower(pattern[i]); c {
		case '*', '?':
			p.add(c, true)
		case '\\':
			if i++; i == len(pattern) || !strings.ContainsRune(`n*?\`, rune(pattern[i])) {
				return p, fmt.Errorf(`%s: behind a backslash stands n, *, ? or another one`, pattern)
			}
			if c = pattern[i]; c == 'n' {
				c = '\n'
			}
			p.add(c, false)
		default:
			p.add(c, false)
		}
	}
	return p, nil
}

func (p *Pattern) add(c byte, wild bool) {
	p.literals = append(p.literals, c)
	if !wild {
		c = 0
	}
	p.wild = append(p.wild, c)
}

// Contains reports whether a literal byte is in the pattern.
func (p Pattern) Contains(literal byte) bool { return bytes.IndexByte(p.literals, literal) >= 0 }

// Steps is how many steps Match takes at most.
func (p Pattern) Steps(text []byte) int {
	if len(text) > MaxText {
		return 0
	}
	return len(p.literals) * len(text)
}

// Match reports whether the pattern describes all of a text. It goes back to the last * only.
func (p Pattern) Match(text []byte) bool {
	if len(text) > MaxText {
		return false
	}
	star, from := -1, 0 // the last *, and where what follows it was tried
	i, at := 0, 0
	for at < len(text) {
		switch {
		case i < len(p.wild) && p.wild[i] == '*':
			star, from = i, at
			i++
		case i < len(p.wild) && (p.wild[i] == '?' || p.literals[i] == p.read(text[at])):
			i++
			at++
		case star >= 0:
			from++
			i, at = star+1, from
		default:
			return false
		}
	}
	for i < len(p.wild) && p.wild[i] == '*' {
		i++
	}
	return i == len(p.wild)
}

func (p Pattern) read(c byte) byte {
	if p.fold {
		return lower(c)
	}
	return c
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
