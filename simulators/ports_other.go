//go:build !linux

package simulators

import (
	"fmt"
	"net"
)

// reservation only remembers a port: this system does not let two sockets share one before either listens.
type reservation struct{ port int }

// reserve finds out that the port is free; 0 takes any free one.
func reserve(port int) (*reservation, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("reserve port: %w", err)
	}
	defer l.Close()
	return &reservation{port: l.Addr().(*net.TCPAddr).Port}, nil
}

// Close gives the port back.
func (r *reservation) Close() {}
