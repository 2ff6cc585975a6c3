#!/bin/sh
# Makes a go.mod in the folder $1 by which Traefik is built with kubernetesPriority in its Ingress provider, with
# waitForDefinitions in the one of the Gateway API, with certificates of our own for names below localhost, and without
# the clients of some 180 DNS providers, which only a certificate from the internet could be proven with. The module is
# taken as its checksum has it; this fails when upstream's source no longer has the places.
set -eu
work=$1
module=github.com/traefik/traefik/v3
mkdir -p "$work"
# With an empty module cache nothing has needed it yet.
go mod download $module
cp -r "$(go list -m -f '{{.Dir}}' $module)" "$work/traefik"
chmod -R u+w "$work/traefik"

# once FILE PLACE: fails unless exactly one line has PLACE.
once() {
    test "$(grep -cF -- "$2" "$1")" = 1 || { echo "$1 does not have this once: $2" >&2; exit 1; }
}
# insert FILE PLACE TEXT: puts TEXT before the line with PLACE.
insert() {
    once "$1" "$2"
    awk -v place="$2" -v text="$3" 'index($0, place) { print text } { print }' "$1" > "$work/inserted.go"
    mv "$work/inserted.go" "$1"
}
# add FILE FOLDER: copies it without the lines that keep it out of our own module.
add() {
    sed "1,/^package/{/^package/!d}" "patch/$1" > "$2/$1"
}

provider=$work/traefik/pkg/provider/kubernetes/ingress
insert "$provider/kubernetes.go" 'rt.Rule = strings.Join(rules, " && ")' \
    '\tif rt.Priority == 0 {\n\t\trt.Priority = kubernetesPriority(rule.Host, pa)\n\t}'
add priority.go "$provider"

provider=$work/traefik/pkg/provider/kubernetes/gateway
insert "$provider/kubernetes.go" 'eventsChan, err := p.client.WatchAll(p.Namespaces, ctxPool.Done())' \
    '\t\t\tif p.client.waitForDefinitions(ctxPool) != nil {\n\t\t\t\treturn nil\n\t\t\t}'
add definitions.go "$provider"

manager=$work/traefik/pkg/tls/tlsmanager.go
place='return store.GetDefaultCertificate(), nil'
once "$manager" "$place"
once "$manager" 'import ('
sed -e "s|$place|return localhost.CertificateFor(clientHello.ServerName, store.GetDefaultCertificate())|" \
    -e 's|^import ($|import (\n\t"sandbar.dev/ingress/localhost"|' "$manager" > "$work/tlsmanager.go"
mv "$work/tlsmanager.go" "$manager"

# A third of all packages, and of the time to build, for what names below localhost cannot have.
acme=$work/traefik/pkg/provider/acme/provider.go
import='"github.com/go-acme/lego/v4/providers/dns"'
place='provider, err = dns.NewDNSChallengeProviderByName(p.DNSChallenge.Provider)'
once "$acme" "$import"
once "$acme" "$place"
sed -e "\\|$import|d" -e "s|$place|err = errors.New(\"this build has no DNS providers\")|" "$acme" > "$work/acme.go"
mv "$work/acme.go" "$acme"

cp go.mod "$work/go.mod"
cp go.sum "$work/go.sum"
go mod edit -replace "$module=$work/traefik" "$work/go.mod"
