// A model server without a model: /predict returns the version in MODEL_VERSION, /ready whether the server is ready.
// The failure to simulate is given by BEHAVIOR, "<version>=<behavior>,…": crash, never-ready, lose-readiness.
// Absent: models, and the download of any.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// The time that loading a model takes; a crash happens at its end.
	loading = 300 * time.Millisecond
	// How long a pod of a lose-readiness version stays ready.
	wellFor = 5 * time.Second
	// How long requests are still served after SIGTERM: clients learn of the removed endpoint later.
	draining = 3 * time.Second
)

func main() {
	version := os.Getenv("MODEL_VERSION")
	behavior := behaviorOf(os.Getenv("BEHAVIOR"), version)
	log.Printf("version %q behaves as %q", version, behavior)
	ready := &atomic.Bool{}
	server := &http.Server{Addr: ":8080", Handler: handler(version, ready)}
	go perform(behavior, ready)
	go func() { log.Fatal(server.ListenAndServe()) }()
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
	drain(server, ready)
}

func handler(version string, ready *atomic.Bool) http.Handler {
	handler := http.NewServeMux()
	handler.HandleFunc("/predict", func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(answer, version)
	})
	handler.HandleFunc("/ready", func(answer http.ResponseWriter, _ *http.Request) {
		if !ready.Load() {
			http.Error(answer, "not ready", http.StatusServiceUnavailable)
		}
	})
	return handler
}

func perform(behavior string, ready *atomic.Bool) {
	time.Sleep(loading)
	switch behavior {
	case "crash":
		log.Fatal("this version cannot be loaded")
	case "never-ready":
	case "lose-readiness":
		ready.Store(true)
		time.Sleep(wellFor)
		ready.Store(false)
	default:
		ready.Store(true)
	}
}

func drain(server *http.Server, ready *atomic.Bool) {
	ready.Store(false)
	time.Sleep(draining)
	limit, cancel := context.WithTimeout(context.Background(), draining)
	defer cancel()
	if err := server.Shutdown(limit); err != nil {
		log.Print(err)
	}
}

// behaviorOf returns the behavior of this version: the first entry that names it.
func behaviorOf(behaviors, version string) string {
	for _, entry := range strings.Split(behaviors, ",") {
		if of, behavior, found := strings.Cut(entry, "="); found && of == version {
			return behavior
		}
	}
	return "ready"
}
