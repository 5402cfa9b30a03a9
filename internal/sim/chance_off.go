//go:build !simruntime

package sim

// seedBubble can do nothing in Go's own runtime.
func seedBubble(uint64) {}

// dialBy can do nothing without the changed dialer.
func dialBy(*network) {}
