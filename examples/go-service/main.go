// go-service is a small service of the kind that bundles carry: a status endpoint with its version
// and the health of what it needs, migrations, and a clean start and stop under systemd.
//
//	go-service               serve; see README.md for the environment variables
//	go-service migrate DIR   apply the migrations of DIR that were not applied yet
//	go-service version       print the version
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The build sets it: go build -ldflags "-X main.version=1.214"
var version = "unknown"

// How long requests that are being answered may take at a stop; the unit's TimeoutStopSec is longer.
const stopLimit = 10 * time.Second

func main() {
	log.SetFlags(0) // the journal has its own time
	err := run(os.Args[1:])
	if err != nil {
		log.Fatalf("go-service: %v", err)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 0:
		return serve()
	case len(arguments) == 2 && arguments[0] == "migrate":
		return migrate(arguments[1], stateFolder())
	case len(arguments) == 1 && arguments[0] == "version":
		fmt.Println(version)
		return nil
	}
	return errors.New("usage: go-service [migrate DIR | version]")
}

// serve answers until SIGTERM, then lets the requests end that it has begun.
func serve() error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	listener, err := net.Listen("tcp", setting("LISTEN", ":8080"))
	if err != nil {
		return err
	}
	routes := http.NewServeMux()
	routes.Handle("/status", &health{
		migrations: setting("MIGRATIONS", "/opt/go-service/migrations"),
		state:      stateFolder(),
		queue:      setting("QUEUE_ADDRESS", ""),
	})
	server := &http.Server{Handler: routes, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()

	log.Printf("version %s listens on %s", version, listener.Addr())
	if err := notify("READY=1\nSTATUS=version " + version); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-stop.Done():
	}
	if err := notify("STOPPING=1"); err != nil {
		log.Printf("go-service: %v", err)
	}
	limit, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	return server.Shutdown(limit)
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// stateFolder is the unit's StateDirectory; systemd sets the variable (systemd.exec(5)).
func stateFolder() string {
	return setting("STATE_DIRECTORY", "/var/lib/go-service")
}
