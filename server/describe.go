package server

import (
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/scache/scache/internal/wire"
)

// describe asks the kernel what a connection is, and where its far end is. Only sockets
// are asked: to ask for a file can block.
func describe(fd int) (kind, remote string) {
	if socket, _ := wire.Lingers(fd); !socket {
		return "file", ""
	}
	domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	protocol, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	kind = "socket"
	switch {
	case domain == unix.AF_UNIX:
		kind = "unix"
	case domain != unix.AF_INET && domain != unix.AF_INET6:
	case protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_MPTCP:
		kind = "tcp"
	case protocol == unix.IPPROTO_UDP:
		kind = "udp"
	}
	address, err := unix.Getpeername(fd)
	if err != nil { // it has none
		return kind, ""
	}
	return kind, addressText(address)
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
