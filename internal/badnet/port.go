package badnet

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are taken from below those that systems give to outgoing connections (Linux
// from 32768 on, others from 49152), so that no connection takes one while nobody
// listens on it.
const (
	lowestPort  = 15000
	highestPort = 32000
)

// FreeAddr returns an address on 127.0.0.1 on which nobody listens, and which stays
// free while a server that listened on it is down.
func FreeAddr() (string, error) {
	listener, err := listen()
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// listen listens on a free address.
func listen() (listener net.Listener, err error) {
	for range 100 {
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		if listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return listener, nil
		}
	}
	return nil, err
}
