//go:build tools

// Package tools keeps `go mod tidy` from dropping the programs that the test bed builds.
package tools

import (
	_ "sigs.k8s.io/kueue/cmd/kueue"
)
