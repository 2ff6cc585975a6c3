#!/bin/sh
# Makes a go.mod in the folder $1 by which Traefik is built with kubernetesPriority in its Ingress provider, and with
# certificates of our own for names below localhost. The module is taken as its checksum has it; this fails when
# upstream's source no longer has the places.
set -eu
work=$1
module=github.com/traefik/traefik/v3
mkdir -p "$work"
# With an empty module cache nothing has needed it yet.
go mod download $module
cp -r "$(go list -m -f '{{.Dir}}' $module)" "$work/traefik"
chmod -R u+w "$work/traefik"

provider=$work/traefik/pkg/provider/kubernetes/ingress
place='rt.Rule = strings.Join(rules, " && ")'
grep -qF "$place" "$provider/kubernetes.go"
awk -v place="$place" \
    'index($0, place) { print "\tif rt.Priority == 0 {\n\t\trt.Priority = kubernetesPriority(rule.Host, pa)\n\t}" } { print }' \
    "$provider/kubernetes.go" > "$work/kubernetes.go"
mv "$work/kubernetes.go" "$provider/kubernetes.go"
# Without the lines that keep it out of our own module.
sed "1,/^package/{/^package/!d}" patch/priority.go > "$provider/priority.go"

manager=$work/traefik/pkg/tls/tlsmanager.go
place='return store.GetDefaultCertificate(), nil'
grep -qF "$place" "$manager"
sed -e "s|$place|return localhost.CertificateFor(clientHello.ServerName, store.GetDefaultCertificate())|" \
    -e 's|^import ($|import (\n\t"sandbar.dev/ingress/localhost"|' "$manager" > "$work/tlsmanager.go"
mv "$work/tlsmanager.go" "$manager"

cp go.mod "$work/go.mod"
cp go.sum "$work/go.sum"
go mod edit -replace "$module=$work/traefik" "$work/go.mod"
