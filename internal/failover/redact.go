package failover

import (
	"regexp"
	"strings"
)

var (
	inURL  = regexp.MustCompile(`://[^@/\s]*@`)
	inPair = regexp.MustCompile(`(?i)\b((?:ssl)?password|passphrase)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&]+)`)
)

// redact takes what looks like a password out of an error's text: base drivers take care not to show one, but a user's
// own connector may print its DSN.
func redact(text string) string {
	text = inURL.ReplaceAllString(text, "://***@")
	return strings.ToValidUTF8(inPair.ReplaceAllString(text, "$1=***"), "?")
}
