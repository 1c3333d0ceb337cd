// Scachectl shows what is in a running scache and steers it; it tells why Postfix
// caches nothing; and it exports metrics. See the manual page scachectl(8).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/scache/scache/cmd/scachectl/socket"
)

// version is set by the linker.
var version = "development"

// The exit statuses, as the manual page has them.
const (
	exitFailed    = 1 // something else; doctor: found an error or a warning
	exitUsage     = 2 // a wrong command line
	exitNoCache   = 3 // no cache answers at the socket
	exitForbidden = 4 // the rights are lacking
	exitUnable    = 5 // a cache that cannot be asked: Postfix's own, or an older one
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// app is what all commands share.
type app struct {
	screen  screen
	sockets []string
	timeout time.Duration
}

// run is the whole command, and returns the exit status.
func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	a := &app{screen: newScreen(stdout)}
	started := false
	root := a.command()
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.timeout <= 0 {
			return fmt.Errorf("--timeout %v: must be longer than 0", a.timeout)
		}
		started = true
		return nil
	}
	root.SetOut(&a.screen)
	root.SetErr(stderr)
	root.SetArgs(longFlags(root, arguments))
	wantShell(root)
	wantTopic(root)
	err := root.ExecuteContext(ctx)
	if a.screen.err != nil {
		started = true
		if err == nil || errors.Is(err, errFound) {
			err = a.screen.err
		}
	}
	if err != nil && !errors.Is(err, errFound) {
		fmt.Fprintf(stderr, "scachectl: %v\n", err)
	}
	switch {
	case err == nil:
		return 0
	case !started:
		return exitUsage
	}
	return status(err)
}

// status is the exit status that tells of an error.
func status(err error) int {
	var trouble *socket.Error
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case !errors.As(err, &trouble):
		return exitFailed
	}
	switch trouble.Kind {
	case socket.Forbidden, socket.Denied:
		return exitForbidden
	case socket.Stock:
		return exitUnable
	case socket.Failed:
		return exitFailed
	}
	return exitNoCache
}

// errUsage is about arguments that parsed, and make no sense.
var errUsage = errors.New("see scachectl help")

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "scachectl",
		Short:         "See and steer scache, the shared connection cache of Postfix",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	// A file's name is offered where one is wanted, and nowhere else.
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	flags := root.PersistentFlags()
	flags.StringArrayVar(&a.sockets, "socket", nil, "`path` of the cache's socket (default: $SCACHE_SOCKET, else Postfix's, else "+socket.Standalone+")")
	flags.BoolVar(&a.screen.json, "json", false, "print JSON")
	a.timeout = 5 * time.Second
	flags.Var((*duration)(&a.timeout), "timeout", "how long to wait for the cache")
	root.RegisterFlagCompletionFunc("socket", cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault))
	root.AddCommand(a.statusCommand(), a.listCommand(), a.flushCommand(), a.pauseCommand(), a.resumeCommand(), a.limitsCommand(), a.topCommand(),
		a.doctorCommand(), a.exporterCommand())
	return root
}

// duration is a flag's value: seconds, or such as 500ms, as those of scache are.
type duration time.Duration

func (d *duration) String() string { return time.Duration(*d).String() }

func (d *duration) Type() string { return "duration" }

func (d *duration) Set(text string) error {
	if _, err := strconv.ParseUint(text, 10, 31); err == nil {
		text += "s"
	}
	parsed, err := time.ParseDuration(text)
	*d = duration(parsed)
	return err
}

// wantShell makes completion without a shell an error: cobra's own prints help, which a shell would
// read. What root writes to must be set.
func wantShell(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.RunE = func(*cobra.Command, []string) error {
			return fmt.Errorf("completion: want bash, zsh, fish or powershell: %w", errUsage)
		}
	}
}

// wantTopic makes help on what there is none on an error: cobra's own prints all help.
func wantTopic(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = func(_ *cobra.Command, topic []string) error {
			_, _, err := root.Find(topic)
			return err
		}
	}
}

// longFlags lets flags have one dash, as those of "scache serve" have: -json is
// --json.
func longFlags(root *cobra.Command, arguments []string) []string {
	known := map[string]bool{"help": true, "version": true}
	var collect func(c *cobra.Command)
	collect = func(c *cobra.Command) {
		learn := func(f *pflag.Flag) { known[f.Name] = true }
		c.PersistentFlags().VisitAll(learn)
		c.Flags().VisitAll(learn)
		for _, sub := range c.Commands() {
			collect(sub)
		}
	}
	collect(root)
	var long []string
	for i, argument := range arguments {
		if argument == "--" {
			return append(long, arguments[i:]...)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(argument, "-"), "=")
		if len(name) > 1 && strings.HasPrefix(argument, "-") && known[name] {
			argument = "-" + argument
		}
		long = append(long, argument)
	}
	return long
}
