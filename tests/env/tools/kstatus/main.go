// Prints the result of kstatus for each object on standard input, one JSON document each, in their order.
// Absent: waiting, and the rules; they are those of the library that Flux uses.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	decoder := json.NewDecoder(os.Stdin)
	for {
		object := map[string]any{}
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		// kstatus reads generations as int64, and JSON has float64.
		plain := &unstructured.Unstructured{}
		text, err := json.Marshal(object)
		if err != nil {
			return err
		}
		if err := plain.UnmarshalJSON(text); err != nil {
			return err
		}
		result, err := status.Compute(plain)
		if err != nil {
			return err
		}
		fmt.Println(result.Status)
	}
}
