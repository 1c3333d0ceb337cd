package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
)

// screen is where a command prints: for people, or JSON. It has colours only if it
// is a terminal, and NO_COLOR is not set.
type screen struct {
	out   io.Writer
	err   error // of the first write that failed
	json  bool
	width int // columns; 0: no terminal, nothing is broken into lines

	good, notice, warning, bad, dim, bold lipgloss.Style
}

func newScreen(out io.Writer) screen {
	renderer := lipgloss.NewRenderer(out)
	colour := func(number string) lipgloss.Style {
		return renderer.NewStyle().Foreground(lipgloss.Color(number))
	}
	s := screen{
		out:  out,
		good: colour("2"), notice: colour("6"), warning: colour("3"), bad: colour("1"),
		dim: renderer.NewStyle().Faint(true), bold: renderer.NewStyle().Bold(true),
	}
	if file, ok := out.(*os.File); ok {
		s.width, _, _ = term.GetSize(file.Fd())
	}
	return s
}

// Write implements io.Writer for all that is printed.
func (s *screen) Write(b []byte) (n int, err error) {
	if n, err = s.out.Write(b); err != nil && s.err == nil {
		s.err = err
	}
	return n, err
}

func (s *screen) printf(format string, arguments ...any) { fmt.Fprintf(s, format, arguments...) }

// printJSON prints a value, indented.
func (s *screen) printJSON(value any) error {
	encoder := newEncoder(s)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// printArray prints what element has made, each on a line of its own.
func (s *screen) printArray(elements [][]byte) {
	out := bufio.NewWriter(s)
	defer out.Flush()
	out.WriteByte('[')
	for i, e := range elements {
		if i > 0 {
			out.WriteString(",\n ")
		}
		out.Write(e)
	}
	out.WriteString("]\n")
}

// element is JSON for printArray.
func element(value any) []byte {
	var b bytes.Buffer
	newEncoder(&b).Encode(value) // cannot fail for texts and numbers
	return bytes.TrimSpace(b.Bytes())
}

func newEncoder(w io.Writer) *json.Encoder {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder
}

// table prints rows in columns. Those that hold numbers only are aligned to the right.
func (s *screen) table(header []string, rows [][]string) {
	widths := make([]int, len(header))
	numeric := make([]bool, len(header))
	for i, title := range header {
		widths[i] = lipgloss.Width(title)
		numeric[i] = len(rows) > 0
	}
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], lipgloss.Width(cell))
			numeric[i] = numeric[i] && isNumber(cell)
		}
	}
	lines := bufio.NewWriter(s)
	defer lines.Flush()
	line := func(cells []string) string {
		var b strings.Builder
		for i, cell := range cells {
			padding := strings.Repeat(" ", widths[i]-lipgloss.Width(cell))
			if numeric[i] {
				b.WriteString(padding + cell)
			} else {
				b.WriteString(cell + padding)
			}
			b.WriteString("  ")
		}
		return strings.TrimRight(b.String(), " ")
	}
	fmt.Fprintln(lines, s.dim.Render(line(header)))
	for _, row := range rows {
		fmt.Fprintln(lines, line(row))
	}
}

// isNumber tells a number, with its unit, or a place where there is none, from addresses and labels.
func isNumber(cell string) bool {
	return cell == "" || cell == "-" || '0' <= cell[0] && cell[0] <= '9' && !strings.ContainsAny(cell, `:\`)
}

// wrap breaks text that is printed behind an indentation into lines, on a terminal
// only.
func (s *screen) wrap(indent int, text string) []string {
	if s.width > indent {
		text = ansi.Wordwrap(text, s.width-indent, "")
	}
	return strings.Split(text, "\n")
}
