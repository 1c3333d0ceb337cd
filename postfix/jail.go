package postfix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// account is the user to become.
type account struct {
	name     string
	uid, gid int
	groups   []int // supplementary, for initgroups(3)
}

// lookUpOwner finds mail_owner, and refuses what Postfix refuses
// (global/mail_params.c, check_mail_owner).
func lookUpOwner(p *Params) (*account, error) {
	name := p.MailOwner
	complain := func(format string, args ...any) (*account, error) {
		return nil, badValue(p.ConfigDirectory, "mail_owner", format, args...)
	}
	u, err := lookUpUser(user.Lookup, name)
	if err != nil || u.Username != name { // a number is no name
		return complain("unknown user name value: %s", name)
	}
	a := &account{name: name}
	if a.uid, err = number(u.Uid); err == nil {
		a.gid, err = number(u.Gid)
	}
	if err != nil {
		return complain("%v", err)
	}
	if a.uid == 0 {
		return complain("user %s has privileged user ID", name)
	}
	if a.gid == 0 {
		return complain("user %s has privileged group ID", name)
	}
	if other, err := lookUpUser(user.LookupId, u.Uid); err == nil && other.Username != name {
		return complain("user %s has same user ID as %s", name, other.Username)
	}
	groups, err := groupsOf(u)
	if err != nil {
		return nil, fmt.Errorf("initgroups: %v", err)
	}
	for _, g := range groups {
		gid, err := number(g)
		if err != nil {
			return nil, fmt.Errorf("initgroups: %v", err)
		}
		a.groups = append(a.groups, gid)
	}
	return a, nil
}

// number is a user's or a group's; the kernel has 32 bits for it.
func number(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	return int(n), err
}

// lookUpUser finds a user by name or number. Built without cgo, package os/user reads /etc/passwd and
// knows no other source; getent(1) knows all.
func lookUpUser(look func(string) (*user.User, error), key string) (*user.User, error) {
	if u, err := look(key); err == nil {
		return u, nil
	}
	line, err := printed("/usr/bin/getent", "passwd", key)
	if err != nil {
		return nil, err
	}
	fields := strings.SplitN(line, ":", 5)
	if len(fields) < 5 {
		return nil, fmt.Errorf("getent: cannot make sense of %q", line)
	}
	return &user.User{Username: fields[0], Uid: fields[2], Gid: fields[3], Name: fromElsewhere}, nil
}

// fromElsewhere marks a user that is not in /etc/passwd, or not as package os/user wants it.
const fromElsewhere = "of getent(1)"

// groupsOf returns the numbers of a user's groups.
func groupsOf(u *user.User) ([]string, error) {
	if u.Name != fromElsewhere {
		return u.GroupIds()
	}
	numbers, err := printed("/usr/bin/id", "-G", u.Username)
	return strings.Fields(numbers), err
}

// printed returns what a command prints, within a minute.
func printed(name string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Env = []string{"LANG=C"}
	text, err := cmd.Output()
	return string(text), err
}

// enterQueueDirectory makes the queue directory the working directory, which it
// stays if there is no jail.
func enterQueueDirectory(dir string) error {
	if err := syscall.Chdir(dir); err != nil {
		return fmt.Errorf("chdir(\"%s\"): %s", dir, cause(err))
	}
	return nil
}

// enterJail does what util/chroot_uid.c, chroot_uid, does, in its order: groups
// while there is still the right to set them, the root directory, the user last.
// root is empty for no jail, owner nil for no change of user. All threads change.
func enterJail(root string, owner *account) error {
	if owner != nil {
		if err := syscall.Setgid(owner.gid); err != nil {
			return fmt.Errorf("setgid(%d): %s", owner.gid, cause(err))
		}
		if err := syscall.Setgroups(owner.groups); err != nil {
			return fmt.Errorf("initgroups: %s", cause(err))
		}
	}
	if root != "" {
		if err := syscall.Chroot(root); err != nil {
			return fmt.Errorf("chroot(%s): %s", root, cause(err))
		}
		if err := syscall.Chdir("/"); err != nil {
			return fmt.Errorf("chdir(/): %s", cause(err))
		}
	}
	if owner == nil {
		return nil
	}
	if err := syscall.Setuid(owner.uid); err != nil {
		return fmt.Errorf("setuid(%d): %s", owner.uid, cause(err))
	}
	return owner.verify()
}

// verify makes sure that there is no way back to root.
func (a *account) verify() error {
	ruid, euid, suid := unix.Getresuid()
	rgid, egid, sgid := unix.Getresgid()
	for _, have := range []struct{ id, want int }{{ruid, a.uid}, {euid, a.uid}, {suid, a.uid}, {rgid, a.gid}, {egid, a.gid}, {sgid, a.gid}} {
		if uint32(have.id) != uint32(have.want) { // those above 1<<31 come back negative
			return fmt.Errorf("not %s after setuid(%d): user ID %d/%d/%d, group ID %d/%d/%d",
				a.name, a.uid, ruid, euid, suid, rgid, egid, sgid)
		}
	}
	if syscall.Setuid(0) == nil || syscall.Setgid(0) == nil {
		return errors.New("privileges are to be had back after setuid")
	}
	return nil
}

// loadTimeZone makes the time package read its files, which the jail will lack.
func loadTimeZone() {
	if zone := posixZone(os.Getenv("TZ")); zone != nil {
		time.Local = zone
	}
	_, _ = time.Now().Zone()
}

// posixZone is the zone of a TZ that is a rule, as in CET-1CEST,M3.5.0,M10.5.0/3: the time package
// knows such rules, but only at the end of a file (RFC 9636). It is nil if TZ names a file.
func posixZone(tz string) *time.Location {
	if tz == "" || tz[0] == ':' || tz[0] == '/' {
		return nil
	}
	if _, err := time.LoadLocation(tz); err == nil {
		return nil
	}
	nul := func(n int) string { return strings.Repeat("\x00", n) }
	header := "TZif2" + nul(15)
	file := header + nul(24) + // no data for who reads 32 bits
		header + nul(16) + "\x00\x00\x00\x01" + "\x00\x00\x00\x04" + // one type, four bytes of names
		nul(6) + "UTC\x00" + "\n" + tz + "\n"
	location, err := time.LoadLocationFromTZData("Local", []byte(file))
	if err != nil {
		return nil
	}
	return location
}
