package server

import (
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// describe asks the kernel what a connection is, and where its far end is. Only sockets
// are asked: to ask for a file can block. It is asked as little as possible, for it has to be for
// each connection of a list.
func describe(fd int) (kind, remote string) {
	address, err := unix.Getpeername(fd)
	domain := 0
	switch address.(type) {
	case *unix.SockaddrUnix:
		domain = unix.AF_UNIX
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		domain = unix.AF_INET
	default: // it has none, or one of another kind
		if err == unix.ENOTSOCK || err == unix.EBADF { // O_PATH, see open(2)
			return "file", ""
		}
		domain, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	}
	return socketKind(fd, domain), addressText(address)
}

func socketKind(fd, domain int) string {
	switch domain {
	case unix.AF_UNIX:
		return "unix"
	case unix.AF_INET, unix.AF_INET6:
		switch protocol, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); protocol {
		case unix.IPPROTO_TCP, unix.IPPROTO_MPTCP:
			return "tcp"
		case unix.IPPROTO_UDP:
			return "udp"
		}
	}
	return "socket"
}

// addressText is an address as people write it. An abstract one, see unix(7), has @ for each
// NUL byte.
func addressText(address unix.Sockaddr) string {
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrUnix:
		if a.Name != "@" { // which stands for no name at all
			return strings.ReplaceAll(a.Name, "\x00", "@")
		}
	}
	return ""
}
