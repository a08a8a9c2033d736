package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

type status struct {
	Database string `json:"Database"`
	Queue    string `json:"Status for SQS queue"`
	Version  string `json:"version"`
}

// health answers 200 if all is well and else 503, which Consul's HTTP check counts as critical.
// The body is the same for both.
type health struct {
	migrations, state, queue string

	lock sync.Mutex
	said string // the last reason in the log, so that one that lasts is told once
}

func (h *health) ServeHTTP(writer http.ResponseWriter, _ *http.Request) {
	answer := status{Database: "Good", Queue: "Healthy", Version: version}
	code := http.StatusOK
	var reasons []string
	if err := checkDatabase(h.migrations, h.state); err != nil {
		answer.Database, code = "Bad", http.StatusServiceUnavailable
		reasons = append(reasons, "Database is Bad: "+err.Error())
	}
	if err := checkQueue(h.queue); err != nil {
		answer.Queue, code = "Unreachable", http.StatusServiceUnavailable
		reasons = append(reasons, "SQS queue is Unreachable: "+err.Error())
	}
	h.say(strings.Join(reasons, "; "))

	body, err := json.MarshalIndent(answer, "", "  ")
	if err != nil {
		http.Error(writer, err.Error(), http.StatusInternalServerError)
		return
	}
	writer.Header().Set("Content-Type", "application/json")
	writer.WriteHeader(code)
	fmt.Fprintf(writer, "%s\n", body)
}

func (h *health) say(reasons string) {
	h.lock.Lock()
	defer h.lock.Unlock()
	if reasons != h.said && reasons != "" {
		log.Print(reasons)
	} else if reasons != h.said {
		log.Print("all is well again")
	}
	h.said = reasons
}

// checkDatabase: a service whose database lacks a migration does not work.
func checkDatabase(migrations, state string) error {
	missing, err := pending(migrations, state)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("not applied: %s", strings.Join(missing, ", "))
	}
	return err
}

// checkQueue: whether somebody listens at the queue's address; a service without a queue misses none.
func checkQueue(address string) error {
	if address == "" {
		return nil
	}
	connection, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return connection.Close()
}
