package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/lab"
)

// Results is all that a call has measured.
type Results struct {
	Machine  Machine    `json:"machine"`
	Binary   string     `json:"binary,omitempty"`
	Outcomes []*Outcome `json:"scenarios"`
	Goals    []Goal     `json:"goals,omitempty"`
	Memory   []Memory   `json:"memory,omitempty"`
	Sweeps   []*Sweep   `json:"sweeps,omitempty"`
	Burst    *Burst     `json:"burst,omitempty"`

	TakeOvers *TakeOvers `json:"take_overs,omitempty"`
}

// Machine says where and of what.
type Machine struct {
	Command    string `json:"command"`
	Processors int    `json:"processors"`
	Model      string `json:"model"`
	MemoryGB   int    `json:"memory_gb"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Commit     string `json:"commit"`
	Postfix    string `json:"postfix,omitempty"`
	Limit      int    `json:"descriptor_limit"`
}

func describeMachine() Machine {
	m := Machine{
		Command:    command(os.Args[1:]),
		Processors: runtime.NumCPU(),
		Model:      "unknown processor",
		Go:         runtime.Version(),
		Commit:     "unknown",
		Limit:      descriptorLimit(),
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryGB = int((uint64(info.Totalram)*uint64(info.Unit) + 1<<29) >> 30)
	}
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.Model = strings.TrimSpace(value)
			break
		}
	}
	if out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=10").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(out))
	}
	m.Postfix, _ = lab.PostfixVersion()
	return m
}

// command is the command line, as a shell takes it.
func command(arguments []string) string {
	text := "go run ./bench"
	for _, a := range arguments {
		if a == "" || strings.ContainsAny(a, " \t\n\"'`$&|;<>()*?[]#~\\") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		text += " " + a
	}
	return text
}

func (m Machine) String() string {
	postfix := ""
	if m.Postfix != "" {
		postfix = ", Postfix " + m.Postfix
	}
	return fmt.Sprintf("%s, %s, %d GB, %s, %s%s, commit %s", count(m.Processors, "processor", "processors"), m.Model, m.MemoryGB, m.Kernel, m.Go, postfix, m.Commit)
}

// prepare makes the directories that are written to in the end, or fails before
// anything has been measured.
func (b *bench) prepare() error {
	var dirs []string
	if b.options.Out != "" {
		dirs = append(dirs, b.options.Out)
	}
	if file := b.options.Report; file != "" {
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			return fmt.Errorf("-report %s: that is a directory", file)
		}
		dirs = append(dirs, filepath.Dir(file))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
			return fmt.Errorf("write into %s: %w", dir, err)
		}
	}
	return nil
}

// write puts the results where they were asked for.
func (b *bench) write() error {
	text, err := json.MarshalIndent(&b.results, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if b.options.JSON {
		if _, err := b.json.Write(text); err != nil {
			return err
		}
	}
	if b.options.Out != "" {
		if err := os.WriteFile(filepath.Join(b.options.Out, "results.json"), text, 0o644); err != nil {
			return err
		}
		if err := drawAll(&b.results, b.options.Out); err != nil {
			return err
		}
	}
	if b.options.Report != "" {
		return writeReport(&b.results, b.options.Report)
	}
	return nil
}
