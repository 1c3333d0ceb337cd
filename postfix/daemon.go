package postfix

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
)

// Daemon is a process that has become a Postfix daemon: in the jail if so asked,
// under the name that the mail log shall show, with nothing left to do but serve.
type Daemon struct {
	Params  Params
	Log     *Log
	Verbose int // the number of -v options, and one for MAIL_VERBOSE in the environment

	// Listeners are the listening sockets, close-on-exec; the caller owns them.
	// None with -S.
	Listeners []int
	// Stdin asks to serve exactly one client: requests on descriptor 0, answers
	// on descriptor 1. There is no Status then.
	Stdin bool
	// Status is the status channel. The caller watches it for end of file, and
	// announces itself when the first client is accepted.
	Status *Status

	program string // scache, or whatever argv[0] is
	service string // the name in master.cf's first column
}

// Start does everything up to serving; argv includes the program's name. It is to
// be called first in main. prepare, which may be nil, is called with the parameters
// when all files can be read still, because the jail and the change of user follow. An
// error of set-up ends the process: one line in the log, a pause of a second, exit
// status 1.
func Start(argv []string, prepare func(*Params)) *Daemon {
	s := newStarter(argv)
	s.prepare = prepare
	if err := s.start(); err != nil {
		s.d.Log.Fatalf("%v", err)
	}
	return s.d
}

// starter is a Daemon that is not ready yet, and what is of no use once it is.
type starter struct {
	d         *Daemon
	options   options
	postconf  *postconf
	params    rawParams
	prepare   func(*Params)
	owner     *account // to become; nil to stay who we are
	optionErr error    // what was wrong with the command line,
	adoptErr  error    // and with the descriptors, to be reported in due order
}

// newStarter takes stock of the descriptors, which comes first, and opens the log,
// so that there is one for what may follow.
func newStarter(argv []string) *starter {
	ignoreSignals()
	loadTimeZone()
	program := "unknown"
	if len(argv) > 0 {
		program, argv = path.Base(argv[0]), argv[1:]
	}
	s := &starter{d: &Daemon{program: program, service: program}}
	s.options, s.optionErr = parseOptions(argv)
	if s.optionErr == nil && !s.options.Stdin {
		s.d.Listeners, s.adoptErr = adoptDescriptors(s.options.Sockets)
	}
	s.d.Log = newLog(maillogOfEnvironment(program).open())
	if _, ok := os.LookupEnv("MAIL_VERBOSE"); ok {
		s.d.Verbose = 1
		s.d.Log.Infof("daemon started")
	}
	return s
}

// start is the order of multi_server.c, multi_server_main.
func (s *starter) start() error {
	steps := []func() error{
		s.takeOptions, s.readParams, s.reopenLog, s.refuseTerminal, s.readOwnParams,
		s.checkLimit, s.checkTransport, s.openStatus, s.debug, s.callPrepare, s.jail,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (s *starter) takeOptions() error {
	s.d.Verbose += s.options.Verbose
	if s.options.Stderr {
		s.d.Log.addStderr(maillogOfEnvironment(s.d.program).tag())
	}
	if s.options.Service != "" {
		s.d.service = s.options.Service
	}
	s.d.Stdin = s.options.Stdin
	return s.optionErr
}

// readParams asks for the parameters, and converts those of every daemon.
func (s *starter) readParams() error {
	s.postconf = &postconf{
		program:   s.d.program,
		service:   s.d.service,
		overrides: s.options.Overrides,
		limit:     postconfLimit,
		config:    os.Getenv("MAIL_CONFIG"),
	}
	a, err := s.postconf.ask(paramNames...)
	for _, w := range a.warnings {
		s.d.Log.Warningf("%s", w)
	}
	if err != nil {
		return err
	}
	s.params = a.values
	facility, err := s.params.facility()
	if err != nil {
		return err
	}
	m := maillogOfEnvironment(s.d.program)
	m.facility = facilities[facility]
	s.d.Log.setMain(m.open(), s.params.utf8())
	p, err := s.params.common()
	if err != nil {
		return err
	}
	p.Mistake = a.mistake
	s.d.Params = *p
	owner, err := lookUpOwner(p)
	if s.options.Unprivileged {
		s.owner = owner
	}
	return err
}

// reopenLog connects to the log again, under the name and at the place that the
// parameters say.
func (s *starter) reopenLog() error {
	m, err := maillogOfParams(s.d.program, &s.d.Params)
	if err != nil {
		return err
	}
	s.d.Log.setMain(m.open(), s.params.utf8())
	if s.options.Stderr {
		s.d.Log.addStderr(m.tag())
	}
	return nil
}

func (s *starter) refuseTerminal() error {
	if s.options.Foreground || s.d.Stdin || !isTerminal(0) {
		return nil
	}
	s.d.Log.addStderr(s.d.program)
	return errors.New("do not run this command by hand")
}

func (s *starter) readOwnParams() error { return s.params.own(&s.d.Params) }

// checkLimit refuses to be one of several: a cache of which there are two finds
// half of what was saved.
func (s *starter) checkLimit() error {
	if !s.d.Stdin && !s.options.Alone {
		return fmt.Errorf("service %s requires a process limit of 1", s.d.service)
	}
	if len(s.options.Args) > 0 {
		return fmt.Errorf("unexpected command-line argument: %s", s.options.Args[0])
	}
	return nil
}

// checkTransport accepts stream listeners. "pass", where postscreen(8) or the like
// hands over connections that are open already, is refused, since no such program
// has clients for us.
func (s *starter) checkTransport() error {
	if s.d.Stdin {
		return nil
	}
	switch strings.ToLower(s.options.Transport) {
	case "":
		return errors.New("no transport type specified")
	case "unix", "inet":
		return s.adoptErr
	default:
		return fmt.Errorf("unsupported transport type: %s", s.options.Transport)
	}
}

// openStatus takes the generation from the environment, and the status channel.
func (s *starter) openStatus() error {
	var generation uint32
	if text, ok := os.LookupEnv("GENERATION"); ok {
		if generation, ok = parseGeneration(text); !ok {
			return fmt.Errorf("bad generation: %s", text)
		}
		if s.d.Verbose > 0 {
			s.d.Log.Infof("process generation: %s (%o)", text, generation)
		}
	}
	if !s.d.Stdin {
		s.d.Status = newStatus(statusFD, os.Getpid(), generation)
	}
	return nil
}

// debug runs debugger_command as util/debug_process.c does: with a shell, and
// until that ends; how it ends does not matter.
func (s *starter) debug() error {
	if _, ok := os.LookupEnv("MAIL_DEBUG"); !ok && !s.options.Debug {
		return nil
	}
	command, err := s.postconf.askDebugger()
	if err != nil {
		return err
	}
	if command == "" {
		return errors.New("no debugger_command variable set up")
	}
	s.d.Log.Infof("running: %s", command)
	shell := exec.Command("/bin/sh", "-c", command)
	shell.Stdin, shell.Stdout, shell.Stderr = os.Stdin, os.Stdout, os.Stderr
	_ = shell.Run()
	return nil
}

func (s *starter) callPrepare() error {
	if s.prepare != nil {
		s.prepare(&s.d.Params)
	}
	return nil
}

// jail changes to the queue directory and gives up what is not needed.
func (s *starter) jail() error {
	if err := enterQueueDirectory(s.d.Params.QueueDirectory); err != nil {
		return err
	}
	root, rootName, userName := "", "(none)", "(none)"
	if s.options.Chroot {
		root, rootName = s.d.Params.QueueDirectory, s.d.Params.QueueDirectory
	}
	if s.owner != nil {
		userName = s.owner.name
	}
	if err := enterJail(root, s.owner); err != nil {
		return err
	}
	if root != "" {
		s.d.Log.enterRoot(root)
	}
	if s.d.Verbose > 1 {
		s.d.Log.Infof("chroot %s user %s", rootName, userName)
	}
	return nil
}
