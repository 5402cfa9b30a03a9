package base

import (
	"net"
	"net/netip"
	"path/filepath"
	"strings"
)

// pin is the one address that a dial is to lead to in place of the host's name, or why there is none. Without either the base
// looks the name up.
type pin struct {
	address string // for pgx with a port, if its LookupFunc gives one
	err     error  // what the lookup met
}

func (p pin) lookup() ([]string, error) {
	if p.err != nil {
		return nil, p.err
	}
	return []string{p.address}, nil
}

// replace puts the address in the place of the host in host:port.
func (p pin) replace(network, address string) (string, error) {
	if p.err != nil || p.address == "" || network == "unix" {
		return address, p.err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(p.address, port), nil
}

// isName says that a host is to be looked up: it is neither an address nor a socket's folder.
func isName(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil && !isSocket(host)
}

func isSocket(host string) bool {
	return host == "" || filepath.IsAbs(host) || strings.HasPrefix(host, "@")
}
