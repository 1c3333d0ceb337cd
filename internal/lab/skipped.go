package lab

import (
	"fmt"
	"os"
)

// Skipped says loudly what is not tested on this machine, and why. `go test` hides
// the output of tests that pass, so `make test` names a file in the environment's
// SCACHE_SKIPPED, and shows it at the end.
func Skipped(what string, why error) {
	line := fmt.Sprintf("SKIPPED: %s: %v\n", what, why)
	os.Stderr.WriteString(line)
	name := os.Getenv("SCACHE_SKIPPED")
	if name == "" {
		return
	}
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer file.Close()
	file.WriteString(line)
}
