package postfix

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
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
// (global/mail_params.c, check_mail_owner). Built without cgo this reads
// /etc/passwd and /etc/group and knows no other source.
func lookUpOwner(p *Params) (*account, error) {
	name := p.MailOwner
	complain := func(format string, args ...any) (*account, error) {
		return nil, badValue(p.ConfigDirectory, "mail_owner", format, args...)
	}
	u, err := user.Lookup(name)
	if err != nil {
		return complain("unknown user name value: %s", name)
	}
	a := &account{name: name}
	if a.uid, err = strconv.Atoi(u.Uid); err == nil {
		a.gid, err = strconv.Atoi(u.Gid)
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
	if other, err := user.LookupId(u.Uid); err == nil && other.Username != name {
		return complain("user %s has same user ID as %s", name, other.Username)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("initgroups: %v", err)
	}
	for _, g := range groups {
		gid, err := strconv.Atoi(g)
		if err != nil {
			return nil, fmt.Errorf("initgroups: %v", err)
		}
		a.groups = append(a.groups, gid)
	}
	return a, nil
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
	loadTimeZone()
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
	if ruid != a.uid || euid != a.uid || suid != a.uid || rgid != a.gid || egid != a.gid || sgid != a.gid {
		return fmt.Errorf("not %s after setuid(%d): user ID %d/%d/%d, group ID %d/%d/%d",
			a.name, a.uid, ruid, euid, suid, rgid, egid, sgid)
	}
	if syscall.Setuid(0) == nil || syscall.Setgid(0) == nil {
		return errors.New("privileges are to be had back after setuid")
	}
	return nil
}

// loadTimeZone makes the time package read its files, which the jail lacks.
func loadTimeZone() { _, _ = time.Now().Zone() }
