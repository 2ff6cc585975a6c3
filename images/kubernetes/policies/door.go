package policies

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"sandbar.dev/lib/agent"
)

// door is the socket at which containers wait for the policies of their pods. It is always served, but has its name only
// while it is open: a question that came in time is answered after it closed.
type door struct {
	listener net.Listener
	isOpen   bool
}

const closedDoor = agent.PoliciesSocket + ".closed"

// openDoor lets nobody through before serve is called.
func openDoor() (*door, error) {
	for _, path := range []string{agent.PoliciesSocket, closedDoor} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	listener, err := net.Listen("unix", agent.PoliciesSocket)
	if err != nil {
		return nil, fmt.Errorf("serve network policies: %w", err)
	}
	return &door{listener: listener, isOpen: true}, nil
}

func (d *door) open() error {
	if d.isOpen {
		return nil
	}
	d.isOpen = true
	return os.Rename(closedDoor, agent.PoliciesSocket)
}

func (d *door) close() error {
	if !d.isOpen {
		return nil
	}
	d.isOpen = false
	return os.Rename(agent.PoliciesSocket, closedDoor)
}

func (d *door) serve(ctx context.Context, cover func(context.Context, agent.PolicyQuestion) error) {
	for {
		connection, err := d.listener.Accept()
		if err != nil {
			// Only the end of the process closes it.
			return
		}
		go func() {
			defer connection.Close()
			var question agent.PolicyQuestion
			if err := json.NewDecoder(connection).Decode(&question); err != nil {
				return
			}
			var answer agent.PolicyAnswer
			if err := cover(ctx, question); err != nil {
				answer.Error = err.Error()
			}
			// Who does not wait for it has no use for it.
			_ = json.NewEncoder(connection).Encode(answer)
		}()
	}
}

// findAddress looks a sandbox up among the addresses that host-local gave away: files that are named by an address and
// begin with the sandbox that has it.
func findAddress(directory, sandboxID string) (string, error) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		if net.ParseIP(entry.Name()) == nil {
			continue
		}
		content, err := os.ReadFile(filepath.Join(directory, entry.Name()))
		if err == nil && sandboxID != "" && bytes.HasPrefix(content, []byte(sandboxID)) {
			return entry.Name(), nil
		}
	}
	return "", fmt.Errorf("sandbox %q: %w", sandboxID, fs.ErrNotExist)
}
