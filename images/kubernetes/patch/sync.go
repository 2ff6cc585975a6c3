//go:build ignore

// Copied into kube-router's own package by apply.sh, which takes these first lines off.

package netpol

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"

	v1core "k8s.io/api/core/v1"
)

// Chains of a fixed name are filled anew in one transaction; upstream gives them a new name for every run.
const noVersion = ""

// What upstream writes for others: bridges, of which this node has none; a log that nobody reads; a mark by which
// traffic is accepted before kube-proxy could reject it; and rules for the node's own traffic, which is always let in.
var superfluousRules = []string{
	"-m physdev --physdev-is-bridged", "-j NFLOG", "--set-mark 0x20000/0x20000", "-A " + kubeOutputChainName,
}

// Sync puts all policies into force, as one change of the packet filter that leaves everybody else's rules alone. Before
// it, addresses come into and leave the sets of rules that stay; others have sets of their own.
// Upstream's own way reads the whole table and writes all of it back, by which it undoes what kube-proxy changes
// meanwhile, and ends the process where something fails. The jumps are rules, in the same transaction, that lead to
// KUBE-ROUTER-INPUT and KUBE-ROUTER-FORWARD; they are asked for with the table as it is, where this run has read it.
func (npc *NetworkPolicyController) Sync(jumps func(saved string) []string) error {
	npc.mu.Lock()
	defer npc.mu.Unlock()
	const family = v1core.IPv4Protocol
	earlier := npc.filterTableRules[family]
	// Unless this run succeeds, the next one looks at the kernel for what is there.
	npc.filterTableRules[family] = new(bytes.Buffer)
	saved := ""
	if earlier.Len() == 0 {
		if err := npc.iptablesSaveRestore[family].SaveInto("filter", earlier); err != nil {
			return err
		}
		saved = earlier.String()
		// What the kernel lacks for sets is an error here; cleanupStaleIPSets would end the process.
		if err := npc.ipSetHandlers[family].Save(); err != nil {
			return fmt.Errorf("read sets of addresses: %w", err)
		}
	}
	rules, sets, err := npc.writeRules(family)
	if err != nil {
		return err
	}
	if err := restoreRules(transaction(rules.String(), chainsIn(earlier.String()), jumps(saved))); err != nil {
		return err
	}
	if err := npc.cleanupStaleIPSets(sets); err != nil {
		return err
	}
	npc.filterTableRules[family] = rules
	return nil
}

// writeRules fills the sets of addresses, and returns the rules that need them.
func (npc *NetworkPolicyController) writeRules(family v1core.IPFamily) (*bytes.Buffer, map[string]bool, error) {
	policies, err := npc.buildNetworkPoliciesInfo()
	if err != nil {
		return nil, nil, err
	}
	rules := new(bytes.Buffer)
	npc.filterTableRules[family] = rules
	defer func() { npc.filterTableRules[family] = new(bytes.Buffer) }()
	if len(policies) > 0 {
		fmt.Fprintf(rules, ":%s\n-A %[1]s -j MARK --set-xmark 0x10000/0x10000\n", kubeDefaultNetpolChain)
	}
	_, sets, err := npc.syncNetworkPolicyChains(policies, noVersion)
	if err != nil {
		return nil, nil, err
	}
	npc.syncPodFirewallChains(policies, noVersion)
	// By way of a Service, a pod reaches itself through the node. No policy keeps it from itself.
	pods := make(map[string]podInfo)
	npc.getLocalPods(pods, npc.nodeIPs[family].String())
	for address, pod := range pods {
		chain := podFirewallChainName(pod.namespace, pod.name, noVersion)
		fmt.Fprintf(rules, "-I %s 1 -s %s -d %[2]s -j ACCEPT\n", chain, address)
	}
	return rules, sets, nil
}

func transaction(rules string, earlierChains map[string]bool, jumps []string) string {
	var declarations, body strings.Builder
	// Declaring a chain empties it.
	declare := func(chain string) { fmt.Fprintf(&declarations, ":%s - [0:0]\n", chain) }
	declare(kubeInputChainName)
	declare(kubeForwardChainName)
	fmt.Fprintf(&body, "-A %s -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN\n", kubeForwardChainName)
	chains := chainsIn(rules)
	for chain := range chains {
		declare(chain)
	}
	for _, line := range strings.SplitAfter(rules, "\n") {
		if strings.HasPrefix(line, "-") && !isSuperfluous(line) {
			body.WriteString(line)
		}
	}
	for _, jump := range jumps {
		fmt.Fprintln(&body, jump)
	}
	for chain := range earlierChains {
		if !chains[chain] {
			declare(chain)
			fmt.Fprintf(&body, "-X %s\n", chain)
		}
	}
	return "*filter\n" + declarations.String() + body.String() + "COMMIT\n"
}

// chainsIn finds the chains of pods and policies in rules, ours or those of iptables-save.
func chainsIn(rules string) map[string]bool {
	chains := make(map[string]bool)
	for _, line := range strings.SplitAfter(rules, "\n") {
		if name, isChain := strings.CutPrefix(line, ":"); isChain {
			name = strings.Fields(name)[0]
			if strings.HasPrefix(name, kubePodFirewallChainPrefix) || strings.HasPrefix(name, kubeNetworkPolicyChainPrefix) {
				chains[name] = true
			}
		}
	}
	return chains
}

func isSuperfluous(rule string) bool {
	for _, part := range superfluousRules {
		if strings.Contains(rule, part) {
			return true
		}
	}
	return false
}

func restoreRules(text string) error {
	command := exec.Command("iptables-restore", "--noflush", "--wait", "5")
	command.Stdin = strings.NewReader(text)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("iptables-restore: %w: %s", err, bytes.TrimSpace(output))
	}
	return nil
}
