module sandbar.dev/gateway-api

go 1.26.0

// The version that images/ingress builds Traefik with.
require (
	sigs.k8s.io/gateway-api v1.4.0
	sigs.k8s.io/yaml v1.6.0
)

require go.yaml.in/yaml/v2 v2.4.2 // indirect
