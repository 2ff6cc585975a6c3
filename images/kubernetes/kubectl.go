//go:build tools

// Package tools names the upstream command that the kubectl image is built from, so that go.mod and go.sum cover it.
package tools

import _ "k8s.io/kubernetes/cmd/kubectl"
