package main

import (
	"fmt"
	"net"
	"os"
)

// notify tells systemd how the service is doing (sd_notify(3)); without systemd it does nothing.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// net makes of an @ in front what systemd means by it, an abstract socket
	address := &net.UnixAddr{Name: path, Net: "unixgram"}
	socket, err := net.DialUnix("unixgram", nil, address)
	if err != nil {
		return fmt.Errorf("cannot notify systemd: %w", err)
	}
	defer socket.Close()
	if _, err := socket.Write([]byte(state)); err != nil {
		return fmt.Errorf("cannot notify systemd: %w", err)
	}
	return nil
}
