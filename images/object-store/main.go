// Command object-store runs MinIO with settings for one developer's machine.
package main

import (
	"log"
	"os"
	"runtime/debug"

	minio "github.com/minio/minio/cmd"

	"sandbar.dev/lib/container"
)

const (
	rootUserPath     = "/etc/sandbar/root-user"
	rootPasswordPath = "/etc/sandbar/root-password"
	dataPath         = "/data"
	apiAddress       = ":9000"
	consoleAddress   = ":9001"
)

type config struct {
	Region string `json:"region"`
}

func main() {
	config, err := container.ReadConfig[config](container.ConfigPath)
	if err != nil {
		log.Fatal(err)
	}
	debug.SetGCPercent(50)
	for name, value := range environment(config) {
		os.Setenv(name, value)
	}
	minio.Main([]string{"minio", "server", dataPath, "--address", apiAddress, "--console-address", consoleAddress, "--quiet"})
}

// MinIO takes these settings from its environment only. It is set here and not on the container, where
// `docker inspect` would show it.
func environment(config config) map[string]string {
	return map[string]string{
		"MINIO_ROOT_USER_FILE":     rootUserPath,
		"MINIO_ROOT_PASSWORD_FILE": rootPasswordPath,
		"MINIO_REGION":             config.Region,
	}
}
