package dsn

import (
	"fmt"
	"strings"
)

// Reader reads DSNs in which some keys are not the base driver's.
type Reader struct {
	Own   []string // the keys that are not the base driver's
	Lists []string // those of them that may be repeated
}

// BadValue is the one form of a complaint about a value: where it comes from, what it is, what is accepted. A value
// that may be a misplaced DSN is not shown.
func BadValue(origin, value, want string) error {
	switch {
	case strings.Contains(value, "@"), strings.Contains(value, "://"), len(value) > 60:
		value = "(" + Hidden + ")"
	default:
		value = Quote(value)
	}
	return fmt.Errorf("%s=%s: want %s", origin, value, want)
}
