//go:build tools

// Package tools names the sample API server of the version that the suite has an image of: an older one than the
// cluster's, on purpose.
package tools

import _ "k8s.io/sample-apiserver"
