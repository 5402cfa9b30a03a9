//go:build simruntime

package sim

// seedBubble is the changed runtime's: see overlay_test.go.
func seedBubble(seed uint64)
