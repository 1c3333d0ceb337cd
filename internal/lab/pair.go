package lab

import "net"

// TCPPair returns both ends of a new TCP connection on loopback, which the caller closes.
func TCPPair() (near, far *net.TCPConn, err error) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	if near, err = net.DialTCP("tcp", nil, listener.Addr().(*net.TCPAddr)); err != nil {
		return nil, nil, err
	}
	if far, err = listener.AcceptTCP(); err != nil {
		near.Close()
		return nil, nil, err
	}
	return near, far, nil
}
