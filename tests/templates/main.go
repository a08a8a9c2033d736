// main renders a template as Consul Template does, with the same library: Go's text/template.
//
//	main TEMPLATE < ANSWERS
//
// ANSWERS is JSON: for each service that the template may name what Consul's /v1/health/service
// answers. Of Consul Template's functions there is `service`, with the fields used in our docs.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sort"
	"text/template"
)

type entry struct {
	Node    struct{ Node, Address string }
	Service struct {
		ID, Service, Address string
		Port                 int
		Tags                 []string
		Meta                 map[string]string
	}
}

// healthService has the names of Consul Template's own: dependency/health_service.go.
type healthService struct {
	Node, NodeAddress, Address, ID, Name string
	Port                                 int
	Tags                                 []string
	ServiceMeta                          map[string]string
}

func main() {
	log.SetFlags(0)
	answers := map[string][]entry{}
	if err := json.NewDecoder(os.Stdin).Decode(&answers); err != nil {
		log.Fatal(err)
	}
	service := func(name string) ([]healthService, error) {
		entries, known := answers[name]
		if !known {
			return nil, fmt.Errorf("no answer for the service %q", name)
		}
		return found(entries), nil
	}
	functions := template.FuncMap{"service": service}
	path := os.Args[1]
	parsed, err := template.New(filepath.Base(path)).Funcs(functions).ParseFiles(path)
	if err != nil {
		log.Fatal(err)
	}
	if err := parsed.Execute(os.Stdout, nil); err != nil {
		log.Fatal(err)
	}
}

// found: a service without an address has that of its host, and the order is always the same.
func found(entries []entry) []healthService {
	list := make([]healthService, 0, len(entries))
	for _, each := range entries {
		address := each.Service.Address
		if address == "" {
			address = each.Node.Address
		}
		list = append(list, healthService{
			Node: each.Node.Node, NodeAddress: each.Node.Address, Address: address,
			ID: each.Service.ID, Name: each.Service.Service, Port: each.Service.Port,
			Tags: each.Service.Tags, ServiceMeta: each.Service.Meta,
		})
	}
	sort.SliceStable(list, func(a, b int) bool {
		if list[a].Node != list[b].Node {
			return list[a].Node < list[b].Node
		}
		return list[a].ID < list[b].ID
	})
	return list
}
