//go:build tools

// Package tools keeps `go mod tidy` from dropping the programs that the test bed builds.
package tools

import (
	_ "github.com/versity/versitygw/cmd/versitygw"
)
