#!/bin/sh
# Makes a go.mod in the folder $1 by which kube-router's network policies are built with sync.go. The module is taken as
# its checksum has it; this fails when upstream's source no longer has the places.
set -eu
work=$1
module=github.com/cloudnativelabs/kube-router/v2
mkdir -p "$work"
# With an empty module cache nothing has needed it yet.
go mod download $module
cp -r "$(go list -m -f '{{.Dir}}' $module)" "$work/kube-router"
chmod -R u+w "$work/kube-router"
netpol=$work/kube-router/pkg/controllers/netpol

# change FILE PLACE REPLACEMENT TIMES
change() {
    test "$(grep -cF -- "$2" "$1")" = "$4" || { echo "$1 does not have this $4 times: $2" >&2; exit 1; }
    awk -v place="$2" -v replacement="$3" \
        '{ at = index($0, place) } at { $0 = substr($0, 1, at - 1) replacement substr($0, at + length(place)) } { print }' \
        "$1" > "$work/changed"
    mv "$work/changed" "$1"
}
# A rule for pods whose only ports are names that no pod has yet would let every port in, or out.
change "$netpol/policy.go" 'if len(ingressRule.ports) == 0 && len(ingressRule.namedPorts) == 0 {' 'if ingressRule.matchAllPorts {' 1
change "$netpol/policy.go" 'if len(egressRule.ports) == 0 && len(egressRule.namedPorts) == 0 {' 'if egressRule.matchAllPorts {' 1
# All named ports of a pod shared one list of addresses, to which each adds those of other pods.
change "$netpol/policy.go" 'ips:             ips,' 'ips: map[api.IPFamily][]string{api.IPv4Protocol: ips[api.IPv4Protocol]},' 1
# At every start of the process, iptables was run to learn of an option that sync.go takes for granted.
change "$work/kube-router/pkg/utils/iptables.go" 'func init() {' 'func _() {' 1
# Without the lines that keep it out of our own module.
sed "1,/^package/{/^package/!d}" patch/sync.go > "$netpol/sync.go"

cp go.mod "$work/go.mod"
cp go.sum "$work/go.sum"
go mod edit -replace "$module=$work/kube-router" "$work/go.mod"
