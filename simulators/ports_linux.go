package simulators

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reservation keeps a port for a process that comes and goes: it is bound, but not listened on, so that nobody else is given
// it while the terminal is dead, and the terminal, which binds with SO_REUSEADDR as every Go server does, may still have it.
type reservation struct{ fd, port int }

// reserve takes the port on the loopback interface; 0 takes any free one.
func reserve(port int) (*reservation, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve port: %w", err)
	}
	r := &reservation{fd: fd}
	if err := r.bind(port); err != nil {
		r.Close()
		return nil, fmt.Errorf("reserve port: %w", err)
	}
	return r, nil
}

func (r *reservation) bind(port int) error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(r.fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	name, err := unix.Getsockname(r.fd)
	if err != nil {
		return err
	}
	r.port = name.(*unix.SockaddrInet4).Port
	return nil
}

// Close gives the port back.
func (r *reservation) Close() { unix.Close(r.fd) }
