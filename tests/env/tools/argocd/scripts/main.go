// Runs health checks and actions in Argo CD's own interpreter, against the expected results beside them, and prints each case.
// The folder that it is given has the layout and the test files of resource_customizations in Argo CD's repository.
// Absent: Lua's standard libraries; Argo CD gives none to scripts of argocd-cm.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// The value that expected results have in place of the time of an action.
const sometime = "0001-01-01T00:00:00Z"

var timestamp = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)

type healthTests struct {
	Tests []struct {
		InputPath    string              `json:"inputPath"`
		HealthStatus health.HealthStatus `json:"healthStatus"`
	} `json:"tests"`
}

type actionTests struct {
	DiscoveryTests []struct {
		InputPath string                    `json:"inputPath"`
		Result    []v1alpha1.ResourceAction `json:"result"`
	} `json:"discoveryTests"`
	ActionTests []struct {
		Action             string `json:"action"`
		InputPath          string `json:"inputPath"`
		ExpectedOutputPath string `json:"expectedOutputPath"`
	} `json:"actionTests"`
}

func main() {
	failed := 0
	report := func(name string, err error) {
		if err != nil {
			failed++
			fmt.Printf("FAILED %s: %v\n", name, err)
			return
		}
		fmt.Println("passed", name)
	}
	err := filepath.Walk(os.Args[1], func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		switch filepath.Base(path) {
		case "health_test.yaml":
			return checkHealth(path, report)
		case "action_test.yaml":
			return checkActions(path, report)
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}

func checkHealth(path string, report func(string, error)) error {
	var tests healthTests
	folder := filepath.Dir(path)
	script, err := readTests(path, "health.lua", &tests)
	if err != nil {
		return err
	}
	for _, test := range tests.Tests {
		object, err := readObject(filepath.Join(folder, test.InputPath))
		if err != nil {
			return err
		}
		found, err := lua.VM{}.ExecuteHealthLua(object, script)
		if err == nil && *found != test.HealthStatus {
			err = fmt.Errorf("%+v in place of %+v", *found, test.HealthStatus)
		}
		report(name(folder, test.InputPath), err)
	}
	return nil
}

func checkActions(path string, report func(string, error)) error {
	var tests actionTests
	folder := filepath.Dir(path)
	discovery, err := readTests(path, "discovery.lua", &tests)
	if err != nil {
		return err
	}
	for _, test := range tests.DiscoveryTests {
		object, err := readObject(filepath.Join(folder, test.InputPath))
		if err != nil {
			return err
		}
		found, err := lua.VM{}.ExecuteResourceActionDiscovery(object, []string{discovery})
		if err == nil && !reflect.DeepEqual(disabled(found), disabled(test.Result)) {
			err = fmt.Errorf("%+v in place of %+v", disabled(found), disabled(test.Result))
		}
		report(name(folder, "discovery "+test.InputPath), err)
	}
	for _, test := range tests.ActionTests {
		err := checkAction(folder, test.Action, test.InputPath, test.ExpectedOutputPath)
		report(name(folder, test.Action+" "+test.InputPath), err)
	}
	return nil
}

func checkAction(folder, action, input, output string) error {
	script, err := os.ReadFile(filepath.Join(folder, action, "action.lua"))
	if err != nil {
		return err
	}
	object, err := readObject(filepath.Join(folder, input))
	if err != nil {
		return err
	}
	expected, err := readObject(filepath.Join(folder, output))
	if err != nil {
		return err
	}
	results, err := lua.VM{}.ExecuteResourceAction(object, string(script), nil)
	if err != nil {
		return err
	}
	if len(results) != 1 || results[0].K8SOperation != lua.PatchOperation {
		return errors.New("it is no patch of the object")
	}
	found, err := plain(withoutTimes(results[0].UnstructuredObj))
	if err != nil {
		return err
	}
	wanted, err := plain(expected)
	if err == nil && found != wanted {
		err = fmt.Errorf("this in place of the expected output:\n%s", found)
	}
	return err
}

func withoutTimes(object *unstructured.Unstructured) *unstructured.Unstructured {
	annotations := object.GetAnnotations()
	for key, value := range annotations {
		if timestamp.MatchString(value) {
			annotations[key] = sometime
		}
	}
	object.SetAnnotations(annotations)
	return object
}

// As text: Lua has no integers.
func plain(object *unstructured.Unstructured) (string, error) {
	text, err := yaml.Marshal(object.Object)
	return string(text), err
}

func disabled(actions []v1alpha1.ResourceAction) map[string]bool {
	all := map[string]bool{}
	for _, action := range actions {
		all[action.Name] = action.Disabled
	}
	return all
}

func readTests(path, script string, tests any) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if err := yaml.UnmarshalStrict(text, tests); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	lines, err := os.ReadFile(filepath.Join(filepath.Dir(path), script))
	return string(lines), err
}

func readObject(path string) (*unstructured.Unstructured, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	return object, yaml.Unmarshal(text, &object.Object)
}

func name(folder, test string) string {
	return filepath.Base(filepath.Dir(folder)) + "/" + filepath.Base(folder) + " " + test
}
