package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sandbar.dev/lib/agent"
)

// answerRuntime does something for the container that the runtime is about to create. The arguments are the runtime's
// own: containerd reads what went wrong from the file that they name for it.
func answerRuntime(arguments []string, serve func(bundle string) error) error {
	var bundle, log string
	for i := 1; i < len(arguments); i++ {
		switch arguments[i-1] {
		case "--bundle":
			bundle = arguments[i]
		case "--log":
			log = arguments[i]
		}
	}
	err := serve(bundle)
	if err != nil && log != "" {
		line, _ := json.Marshal(map[string]string{
			"level": "error", "msg": err.Error(), "time": time.Now().UTC().Format(time.RFC3339Nano),
		})
		if file, openErr := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); openErr == nil {
			fmt.Fprintf(file, "%s\n", line)
			file.Close()
		}
	}
	return err
}

// awaitPolicies returns when the network policies of a container's pod are in force.
func awaitPolicies(arguments []string) error {
	return answerRuntime(arguments, func(bundle string) error {
		question, err := podOf(bundle)
		if err != nil {
			return err
		}
		return agent.AwaitPolicies(question)
	})
}

func podOf(bundle string) (agent.PolicyQuestion, error) {
	content, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return agent.PolicyQuestion{}, err
	}
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(content, &spec); err != nil {
		return agent.PolicyQuestion{}, fmt.Errorf("read the bundle's config.json: %w", err)
	}
	return agent.PolicyQuestion{
		SandboxID: spec.Annotations["io.kubernetes.cri.sandbox-id"],
		Namespace: spec.Annotations["io.kubernetes.cri.sandbox-namespace"],
		Pod:       spec.Annotations["io.kubernetes.cri.sandbox-name"],
		UID:       spec.Annotations["io.kubernetes.cri.sandbox-uid"],
	}, nil
}
