// A model server without a model: /predict answers the version that it was told to serve, /ready whether it would.
// What it does wrong is told by PLAY, "<version>=<play>,…": crash, never-ready, lose-readiness.
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
	// Loading a model takes a moment, and a broken one fails in it.
	loading = 300 * time.Millisecond
	// How long a version that loses its readiness has it.
	wellFor = 5 * time.Second
	// Who has not yet heard that this pod ends is served so long.
	draining = 3 * time.Second
)

func main() {
	version := os.Getenv("MODEL_VERSION")
	play := playOf(os.Getenv("PLAY"), version)
	log.Printf("version %q plays %q", version, play)
	ready := &atomic.Bool{}
	server := &http.Server{Addr: ":8080", Handler: handler(version, ready)}
	go perform(play, ready)
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

func perform(play string, ready *atomic.Bool) {
	time.Sleep(loading)
	switch play {
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

// The play of this version: the first entry that names it.
func playOf(plays, version string) string {
	for _, entry := range strings.Split(plays, ",") {
		if of, play, found := strings.Cut(entry, "="); found && of == version {
			return play
		}
	}
	return "ready"
}
