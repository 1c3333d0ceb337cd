package server

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// overflowUser is whom the kernel shows in the place of a user who is not known in our user namespace
// (user_namespaces(7), /proc/sys/kernel/overflowuid): often called nobody.
const overflowUser = 65534

// ownUser reports whether a user is the one that we run as. Where strangers look like that one,
// nobody is.
func ownUser(uid uint32) bool { return uid == uint32(unix.Geteuid()) && !strangersLookLikeUs() }

// strangersLookLikeUs reports whether we run as the overflow user where not all users are known.
func strangersLookLikeUs() bool {
	if unix.Geteuid() != overflowUser {
		return false
	}
	users, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || strings.Join(strings.Fields(string(users)), " ") != "0 0 4294967295"
}
