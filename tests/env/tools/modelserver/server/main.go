// A model server without a model: /predict returns the version in MODEL_VERSION, /ready whether the server is ready.
// The failure to simulate is given by BEHAVIOR, "<version>=<behavior>,…": crash, crash-twice, end-soon, never-ready, lose-readiness.
// A second container of the pod has another PORT, and gets its version as SIDECAR_OF.
// Absent: models, and the download of any.
package main

import (
	"cmp"
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
	// How long a container of an end-soon version lives after each start.
	livesFor = 3 * time.Second
	// The file that counts the starts of a crash-twice version: on a volume of the pod.
	starts = "/state/starts"
	// How long requests are still served after SIGTERM: clients learn of the removed endpoint later.
	draining = 3 * time.Second
)

func main() {
	version := cmp.Or(os.Getenv("MODEL_VERSION"), os.Getenv("SIDECAR_OF"))
	behavior := behaviorOf(os.Getenv("BEHAVIOR"), version)
	log.Printf("version %q behaves as %q", version, behavior)
	ready := &atomic.Bool{}
	server := &http.Server{Addr: ":" + cmp.Or(os.Getenv("PORT"), "8080"), Handler: handler(version, ready)}
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
	case "crash-twice":
		if countStart() <= 2 {
			log.Fatal("this start fails")
		}
		ready.Store(true)
	case "end-soon":
		ready.Store(true)
		time.Sleep(livesFor)
		log.Fatal("this version ends soon after each start")
	case "never-ready":
	case "lose-readiness":
		ready.Store(true)
		time.Sleep(wellFor)
		ready.Store(false)
	default:
		ready.Store(true)
	}
}

// countStart returns the number of this start.
func countStart() int64 {
	file, err := os.OpenFile(starts, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("."); err != nil {
		log.Fatal(err)
	}
	status, err := file.Stat()
	if err != nil {
		log.Fatal(err)
	}
	return status.Size()
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
