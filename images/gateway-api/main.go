// Command gateway-api prints the definitions of the Gateway API's standard channel, as the module has them, as JSON: a
// part of the control plane's build, which spares each start the reading of 700 KiB of YAML.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"sigs.k8s.io/gateway-api/pkg/consts"
	"sigs.k8s.io/yaml"
)

type bundle struct {
	Version     string            `json:"version"`
	Definitions []json.RawMessage `json:"definitions"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

// run reads the folder of the module.
func run(module string) error {
	paths, err := filepath.Glob(filepath.Join(module, "config/crd/standard", "gateway.networking.k8s.io_*.yaml"))
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("no definitions in %s", module)
	}
	found := bundle{Version: consts.BundleVersion}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		definition, err := yaml.YAMLToJSONStrict(content)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		found.Definitions = append(found.Definitions, definition)
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
