package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

// listen binds a free loopback port below the ephemeral range: inside it, an
// outgoing connection could sit on the port that a receiver is to come back to.
func listen() (*net.TCPListener, error) {
	const lowest = 1024
	ephemeral := 32768
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(text), &ephemeral)
	}
	if ephemeral <= lowest {
		return nil, errors.New("lab: no port below the ephemeral range")
	}
	var err error
	for range 100 {
		port := lowest + rand.IntN(ephemeral-lowest)
		var l *net.TCPListener
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("lab: %w", err)
}

// FreePort finds a port for a program that cannot be handed a socket.
func FreePort() (int, error) {
	l, err := listen()
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return portOf(l), nil
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
