// Command object-store runs MinIO with settings for one developer's machine.
package main

import (
	"log"
	"maps"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"time"

	minio "github.com/minio/minio/cmd"

	"sandbar.dev/lib/container"
)

const (
	readyURL = "http://127.0.0.1:9000/minio/health/ready"
	// What is collected while MinIO works: see settle.
	gcPercent        = 25
	readyPollDelay   = 100 * time.Millisecond
	startupTailDelay = 3 * time.Second
	settleInterval   = 2 * time.Minute
)

type config struct {
	Region string `json:"region"`
}

func main() {
	config, err := container.ReadConfig[config](container.ConfigPath)
	if err != nil {
		log.Fatal(err)
	}
	settings := settings(config)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if err := os.Setenv(name, settings[name]); err != nil {
			log.Fatal(err)
		}
	}
	debug.SetGCPercent(-1)
	go settle()
	minio.Main([]string{"minio", "server", "/data", "--address", ":9000", "--console-address", ":9001", "--quiet"})
}

// MinIO takes these settings from its environment only. It is set here and not on the container, where
// `docker inspect` would show it.
func settings(config config) map[string]string {
	return map[string]string{
		"MINIO_ROOT_USER_FILE":     "/etc/sandbar/root-user",
		"MINIO_ROOT_PASSWORD_FILE": "/etc/sandbar/root-password",
		"MINIO_REGION":             config.Region,
		// One disk: there is nothing to heal, and expiry rules are looked at every half hour.
		"MINIO_SCANNER_SPEED":           "slowest",
		"MINIO_HEAL_BITROTSCAN":         "off",
		"MINIO_UPDATE":                  "off",
		"MINIO_BROWSER_LOGIN_ANIMATION": "off",
	}
}

// At its start MinIO allocates queues of 180 MB that a developer's machine never fills. Their pages stay untouched,
// and cost nothing, only when they come straight from the system: a collection before would hand out used memory,
// which has to be cleared first. So none runs until MinIO is ready (measured: 58 MiB resident become 32). The queues
// count for the collector's pace all the same, hence a small percentage, and returning memory from time to time.
func settle() {
	for !isReady() {
		time.Sleep(readyPollDelay)
	}
	time.Sleep(startupTailDelay)
	debug.SetGCPercent(gcPercent)
	for {
		debug.FreeOSMemory()
		time.Sleep(settleInterval)
	}
}

func isReady() bool {
	response, err := http.Get(readyURL)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}
