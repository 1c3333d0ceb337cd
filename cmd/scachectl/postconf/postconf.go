// Package postconf asks postconf(1), so that main.cf and master.cf are read by
// Postfix's own code: continuation lines, defaults, $name, and -o options.
package postconf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// ErrMissing says that there is no postconf(1), and so no Postfix.
var ErrMissing = errors.New("no postconf(1) command: Postfix is not installed")

// Instance is a Postfix instance, known by its configuration.
type Instance struct {
	Directory string // of main.cf and master.cf; empty: the system's
}

// Command is the words of a postconf(1) command on this instance, for people to
// copy.
func (i Instance) Command(words ...string) []string {
	if i.Directory == "" {
		return append([]string{"postconf"}, words...)
	}
	return append([]string{"postconf", "-c", i.Directory}, words...)
}

// Values returns the expanded values of parameters, with overrides of the form
// name=value on top, as a service has them that is started with -o. A parameter
// that Postfix does not have and that is not set is missing in the answer.
func (i Instance) Values(ctx context.Context, overrides, names []string) (map[string]string, error) {
	words := []string{"-x"}
	for _, o := range overrides {
		words = append(words, "-o", o)
	}
	// postconf(1) knows a parameter that Postfix does not have only if the value of
	// another one refers to it.
	words = append(words, "-o", "scachectl_parameters=$"+strings.Join(names, " $"))
	out, err := i.run(ctx, append(words, names...)...)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(line, "=")
		values[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return values, nil
}

// Service is a line of master.cf.
type Service struct {
	Name, Type   string
	Private      string   // "-" is y
	Chroot       string   // "-" is n, but y at a compatibility_level below 1
	ProcessLimit string   // "-" is default_process_limit
	Command      string   // the program and its options, as they are written
	Overrides    []string // name=value: of the -o options, with the service's name for $service_name
}

// ID is what postconf(1) calls the service.
func (s *Service) ID() string { return s.Name + "/" + s.Type }

// Program is the base name of what the service executes.
func (s *Service) Program() string {
	program, _, _ := strings.Cut(s.Command, " ")
	return program
}

// Services returns the lines of master.cf, in order.
func (i Instance) Services(ctx context.Context) ([]*Service, error) {
	fields, err := i.run(ctx, "-F")
	if err != nil {
		return nil, err
	}
	overrides, err := i.run(ctx, "-P")
	if err != nil {
		return nil, err
	}
	var services []*Service
	byID := map[string]*Service{}
	err = eachSetting(fields, func(name, kind, field, value string) {
		id := name + "/" + kind
		if byID[id] == nil {
			byID[id] = &Service{Name: name, Type: kind}
			services = append(services, byID[id])
		}
		byID[id].set(field, value)
	})
	if err != nil {
		return nil, err
	}
	err = eachSetting(overrides, func(name, kind, parameter, value string) {
		if s := byID[name+"/"+kind]; s != nil {
			s.Overrides = append(s.Overrides, parameter+"="+s.named(value))
		}
	})
	return services, err
}

// named has the service's name for $service_name, which Values could not know.
func (s *Service) named(value string) string {
	return strings.NewReplacer("$service_name", s.Name, "${service_name}", s.Name, "$(service_name)", s.Name).Replace(value)
}

// eachSetting reads lines of the form "name/type/key = value".
func eachSetting(text string, yield func(name, kind, key, value string)) error {
	for line := range strings.Lines(text) {
		path, value, ok := strings.Cut(line, "=")
		parts := strings.Split(strings.TrimSpace(path), "/")
		if !ok || len(parts) < 3 {
			return fmt.Errorf("postconf: cannot make sense of %q", line)
		}
		// The name of a service may be a path, or an address with slashes.
		last := len(parts) - 1
		yield(strings.Join(parts[:last-1], "/"), parts[last-1], parts[last], strings.TrimSpace(value))
	}
	return nil
}

func (s *Service) set(field, value string) {
	switch field {
	case "private":
		s.Private = value
	case "chroot":
		s.Chroot = value
	case "process_limit":
		s.ProcessLimit = value
	case "command":
		s.Command = value
	}
}

// places is where postconf(1) may be if PATH lacks it, as an ordinary user's does.
var places = []string{"/usr/sbin/postconf", "/usr/local/sbin/postconf", "/opt/postfix/sbin/postconf"}

func find() (string, error) {
	if path, err := exec.LookPath("postconf"); err == nil {
		return path, nil
	}
	for _, path := range places {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", ErrMissing
}

// limit bounds the wait for postconf(1): it takes milliseconds, and up to three
// seconds while main.cf is fresh.
const limit = 15 * time.Second

func (i Instance) run(ctx context.Context, words ...string) (string, error) {
	path, err := find()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, i.Command(words...)[1:]...)
	cmd.Env = append(os.Environ(), "LANG=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		// Its last word is why; a warning that names no file may say more.
		said := strings.Split(strings.ReplaceAll(strings.TrimSpace(stderr.String()), path+": ", ""), "\n")
		last := len(said) - 1
		if last > 0 && strings.HasPrefix(said[last-1], "warning: ") && !strings.Contains(said[last-1], ".cf") {
			said[last] += "; " + said[last-1]
		}
		return "", fmt.Errorf("postconf: %w: %s", err, said[last])
	}
	return stdout.String(), nil
}
