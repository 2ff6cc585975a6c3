package mounts

import (
	"encoding/json"
	"fmt"
	"net"
)

// ControlSocket is where the component that places mounts answers commands inside of the agent.
const ControlSocket = "/run/sandbar/mounts-control.sock"

// Request is one question to that component; the fields besides Command belong to some commands only.
type Request struct {
	// list, wait, or prepare.
	Command string `json:"command"`
	// wait: mounts that have to be attached.
	IDs []string `json:"ids,omitempty"`
	// wait: how long, in milliseconds.
	TimeoutMs int64 `json:"timeoutMs,omitempty"`
	// prepare: the bundle of a container that the runtime is about to create.
	Bundle string `json:"bundle,omitempty"`
}

// Response holds an error, or the mounts that were asked for.
type Response struct {
	Error  string   `json:"error,omitempty"`
	Mounts []Status `json:"mounts,omitempty"`
}

// Status is what is known of a mount on the node.
type Status struct {
	ID string `json:"id"`
	// attached, stale (it was, and its source is gone on the host), waiting (nothing was handed over yet), or failed.
	State  string `json:"state"`
	Detail string `json:"detail"`
	// Where it lies on the node.
	Path       string `json:"path"`
	FileSystem string `json:"fileSystem"`
	// same, mapped, unsupported, or nothing while no container has it.
	Ownership string `json:"ownership"`
	Owner     *User  `json:"owner,omitempty"`
	// Users of containers whose files are the owner's on the host, or should be.
	Users []User `json:"users"`
}

// User is a user and group as numbers.
type User struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// Ask sends a request and returns the answer; an error of the component is an error here.
func Ask(request Request) (Response, error) {
	connection, err := net.Dial("unix", ControlSocket)
	if err != nil {
		return Response{}, fmt.Errorf("mounts are not served yet: %w", err)
	}
	defer connection.Close()
	if err := json.NewEncoder(connection).Encode(request); err != nil {
		return Response{}, err
	}
	var response Response
	if err := json.NewDecoder(connection).Decode(&response); err != nil {
		return Response{}, fmt.Errorf("read the answer: %w", err)
	}
	if response.Error != "" {
		return response, fmt.Errorf("%s", response.Error)
	}
	return response, nil
}
