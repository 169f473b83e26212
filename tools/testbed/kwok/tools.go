//go:build tools

// Package kwok pins the program that plays the kubelets. It stands apart because it follows another release of the
// Kubernetes libraries than the control plane does.
package kwok

import _ "sigs.k8s.io/kwok/cmd/kwok"
