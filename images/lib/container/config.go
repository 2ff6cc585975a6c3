// Package container holds what every Sandbar container does before its real work: reading its configuration,
// setting its routes, giving up privileges and waiting for the API server.
package container

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// ConfigPath is where the command line puts a container's configuration before it starts the container.
const ConfigPath = "/etc/sandbar/config.json"

// ReadConfig reads a configuration file. An unknown key is an error: image and command line have drifted apart.
func ReadConfig[T any](path string) (T, error) {
	var config T
	content, err := os.ReadFile(path)
	if err != nil {
		return config, fmt.Errorf("read configuration: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config); err != nil {
		return config, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return config, nil
}
