package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
)

const (
	// PoliciesSocket is where the runtime asks that a pod's network policies are in force. It has this name only while
	// there are any, so that a container starts without a question otherwise.
	PoliciesSocket = "/run/sandbar/network-policies"
	// AddressesDirectory is where the CNI plugin host-local keeps a file for each address of a pod.
	AddressesDirectory = "/run/cni/networks/sandbar"
)

// PolicyJumps are the rules of the packet filter that lead to the chains of network policies. Not in OUTPUT: the node
// reaches every pod.
func (config Config) PolicyJumps() []string {
	if config.NetworkPolicy == nil {
		return nil
	}
	return []string{
		"INPUT -j KUBE-ROUTER-INPUT",
		fmt.Sprintf("FORWARD ! -s %s/32 -j KUBE-ROUTER-FORWARD", config.NetworkPolicy.ControlPlane),
	}
}

// PolicyQuestion names the pod of a container that is about to be created.
type PolicyQuestion struct {
	SandboxID string `json:"sandboxId"`
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	UID       string `json:"uid"`
}

// PolicyAnswer comes once the pod's policies are in force, or says why they are not.
type PolicyAnswer struct {
	Error string `json:"error,omitempty"`
}

// AwaitPolicies returns when the policies of a pod are in force.
func AwaitPolicies(question PolicyQuestion) error {
	connection, err := net.Dial("unix", PoliciesSocket)
	if err != nil {
		return fmt.Errorf("network policies are not served yet: %w", err)
	}
	defer connection.Close()
	if err := json.NewEncoder(connection).Encode(question); err != nil {
		return err
	}
	var answer PolicyAnswer
	if err := json.NewDecoder(connection).Decode(&answer); err != nil {
		return fmt.Errorf("wait for network policies: %w", err)
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return nil
}
