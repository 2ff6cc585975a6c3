package mounts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"sandbar.dev/lib/packets"
)

// ControlSocket is where the component that places mounts answers commands inside of the agent.
const ControlSocket = "/run/sandbar/mounts-control.sock"

// Request is one question to that component; the fields besides Command belong to some commands only.
type Request struct {
	// list, wait, prepare, attach, or discard.
	Command string `json:"command"`
	// wait: mounts that have to be attached.
	IDs []string `json:"ids,omitempty"`
	// wait: how long, in milliseconds.
	TimeoutMs int64 `json:"timeoutMs,omitempty"`
	// prepare, attach: the bundle of a container that the runtime is about to create.
	Bundle string `json:"bundle,omitempty"`
	// discard: what was written over excluded paths stays in these namespaces.
	KeptNamespaces []string `json:"keptNamespaces,omitempty"`
}

// Response holds an error, or what was asked for.
type Response struct {
	Error  string   `json:"error,omitempty"`
	Mounts []Status `json:"mounts,omitempty"`
	// Descriptors travel beside the response, one for each attachment that has one.
	Attachments []Attachment `json:"attachments,omitempty"`
}

// Attachment is something that a container gets before it starts.
type Attachment struct {
	Destination string `json:"destination"`
	// A detached mount, or -1 for what is mounted at the destination already.
	Descriptor int `json:"descriptor"`
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
	connection, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: ControlSocket, Net: "unix"})
	if err != nil {
		return Response{}, fmt.Errorf("mounts are not served yet: %w", err)
	}
	defer connection.Close()
	if err := json.NewEncoder(connection).Encode(request); err != nil {
		return Response{}, err
	}
	response, err := readResponse(connection)
	if err == nil && response.Error != "" {
		err = errors.New(response.Error)
	}
	return response, err
}

// mostDescriptors is the kernel's limit for one message (SCM_MAX_FD).
const mostDescriptors = 253

// Answer writes a response, and closes its descriptors.
func Answer(connection *net.UnixConn, response Response) error {
	var descriptors []int
	for _, attachment := range response.Attachments {
		if attachment.Descriptor >= 0 {
			descriptors = append(descriptors, attachment.Descriptor)
			defer unix.Close(attachment.Descriptor)
		}
	}
	if len(descriptors) > mostDescriptors {
		response, descriptors = Response{Error: fmt.Sprintf("%d mounts are too many for one container", len(descriptors))}, nil
	}
	content, err := json.Marshal(response)
	if err != nil {
		return err
	}
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	n, _, err := connection.WriteMsgUnix(content, rights, nil)
	if err == nil && n < len(content) {
		_, err = connection.Write(content[n:])
	}
	return err
}

// readResponse reads until the component has closed the connection, and puts received descriptors in their places.
func readResponse(connection *net.UnixConn) (Response, error) {
	var content []byte
	var descriptors []int
	buffer := make([]byte, 64<<10)
	rights := make([]byte, unix.CmsgSpace(4*mostDescriptors))
	for {
		n, oobn, _, _, err := connection.ReadMsgUnix(buffer, rights)
		content = append(content, buffer[:n]...)
		received, rightsErr := packets.ParseRights(rights[:oobn])
		descriptors = append(descriptors, received...)
		if rightsErr != nil {
			return Response{}, rightsErr
		}
		if errors.Is(err, io.EOF) || (err == nil && n == 0) {
			break
		}
		if err != nil {
			return Response{}, fmt.Errorf("read the answer: %w", err)
		}
	}
	var response Response
	if err := json.Unmarshal(content, &response); err != nil {
		return Response{}, fmt.Errorf("read the answer: %w", err)
	}
	for i := range response.Attachments {
		if response.Attachments[i].Descriptor < 0 {
			continue
		}
		if len(descriptors) == 0 {
			return Response{}, errors.New("a descriptor is missing in the answer")
		}
		response.Attachments[i].Descriptor, descriptors = descriptors[0], descriptors[1:]
	}
	return response, nil
}
