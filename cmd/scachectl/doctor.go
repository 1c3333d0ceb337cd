package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/charmbracelet/lipgloss"
	"github.com/spf13/cobra"

	"github.com/scache/scache/cmd/scachectl/doctor"
	"github.com/scache/scache/cmd/scachectl/postconf"
)

// errFound is doctor's way to exit status 1: all has been said.
var errFound = errors.New("doctor found something")

func (a *app) doctorCommand() *cobra.Command {
	var instance postconf.Instance
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say why Postfix caches nothing, or uses little again",
		Long: `Doctor reads the configuration of Postfix through postconf(1), looks at the
cache's program, its socket and the end of the mail log, and says what keeps
connections from being cached or used again, each with the command to change it.
It works with Postfix's own scache, too. It changes nothing.

The exit status is 1 if there is an error or a warning, 0 if there are notes only.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(a.sockets) > 0 {
				return fmt.Errorf("doctor looks at the caches that Postfix's configuration names, and takes no --socket: %w", errUsage)
			}
			if c.Flags().Changed("config") && instance.Directory == "" {
				return fmt.Errorf("--config: empty: %w", errUsage)
			}
			instance.Directory = cmp.Or(instance.Directory, os.Getenv("MAIL_CONFIG"))
			if instance.Directory != "" { // as the commands to copy need it
				absolute, err := filepath.Abs(instance.Directory)
				if err != nil {
					return err
				}
				instance.Directory = absolute
			}
			system, err := doctor.Read(c.Context(), instance)
			if err != nil {
				return err
			}
			report := doctor.NewReport(system)
			if a.screen.json {
				err = a.screen.printJSON(report)
			} else {
				a.printReport(report)
			}
			if err == nil && report.Worst() > doctor.Note {
				err = errFound
			}
			return err
		},
	}
	c.Flags().StringVarP(&instance.Directory, "config", "c", "", "Postfix's configuration `directory` (default: $MAIL_CONFIG, else that of the system)")
	c.MarkFlagDirname("config")
	return c
}

func (a *app) printReport(r *doctor.Report) {
	s := &a.screen
	s.printf("Postfix %s, %s\n", r.Postfix.Version, r.Postfix.ConfigDirectory)
	for _, c := range r.Caches {
		s.printf("%s: %s, %s\n", c.Service, c.Program, c.Socket)
	}
	s.printf("\n")
	var rows [][]string
	for _, agent := range r.Agents {
		rows = append(rows, []string{agent.Service, agent.Caches, agent.TimeToLive, agent.TLS})
	}
	s.table([]string{"AGENT", "CACHES", "FOR", "UNDER TLS"}, rows)
	a.printRules(r.Caches)
	for _, f := range r.Findings {
		s.printf("\n")
		a.printFinding(f)
	}
	s.printf("\n%s\n", strings.Join(s.wrap(0, summary(r)), "\n"))
}

// printRules shows the rules for destinations that the caches have.
func (a *app) printRules(caches []doctor.CacheReport) {
	for _, c := range caches {
		var rows [][]string
		for _, r := range c.Rules {
			rows = append(rows, []string{r.Place, r.Rule, r.Meaning})
		}
		if len(rows) > 0 {
			a.screen.printf("\n")
			a.screen.table([]string{"RULE OF " + strings.ToUpper(c.Service), "PATTERNS AND OPTIONS", "WHAT MATCHES IS"}, rows)
		}
	}
}

// indent is where the text of a finding begins, behind its severity.
const indent = 9

func (a *app) printFinding(f doctor.Finding) {
	s := &a.screen
	text := f.Text
	if len(f.Services) > 0 {
		text = strings.Join(f.Services, ", ") + ": " + text
	}
	style := map[doctor.Severity]lipgloss.Style{doctor.Note: s.notice, doctor.Warning: s.warning, doctor.Error: s.bad}[f.Severity]
	s.printf("%s", style.Render(fmt.Sprintf("%-*s", indent, f.Severity)))
	for i, line := range s.wrap(indent, text) {
		s.printf("%*s%s\n", min(i, 1)*indent, "", s.bold.Render(line))
	}
	for _, line := range s.wrap(indent, f.Why) {
		s.printf("%*s%s\n", indent, "", s.dim.Render(line))
	}
	for _, command := range f.Fix {
		s.printf("%*s%s\n", indent, "", s.good.Render(command)) // in one line, to be copied
	}
}

// summary is the last line.
func summary(r *doctor.Report) string {
	if len(r.Findings) == 0 {
		return "Nothing to complain about."
	}
	count := map[doctor.Severity]int{}
	fixes := 0
	for _, f := range r.Findings {
		count[f.Severity]++
		fixes += len(f.Fix)
	}
	text := fmt.Sprintf("%s, %s, %s.", plural(count[doctor.Error], "error"), plural(count[doctor.Warning], "warning"), plural(count[doctor.Note], "note"))
	if fixes > 0 {
		text += fmt.Sprintf(" Each command is a suggestion; changes take effect with \"%s\".", r.Postfix.Reload)
	}
	return text
}
