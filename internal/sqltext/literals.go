package sqltext

import "strings"

// withoutLiterals is a text without what stands in its literals and quoted names, and so in the bodies of DO blocks and functions:
// their BEGIN and END are a block's and no transaction's. One in which COMMIT or the like stands is left as it is: PostgreSQL
// refuses that in a DO block within a transaction, but another server may not. Where a literal ends follows the server's
// own rules (scan.l in PostgreSQL), and from where these go by what the text doesn't tell, as a backslash whose meaning is a
// setting's, all is left as it is.
func withoutLiterals(text string) string {
	if !strings.ContainsAny(text, `'"$`) {
		return text
	}
	var kept strings.Builder
	for rest := text; rest != ""; {
		n, literal := token(rest)
		switch {
		case n == 0:
			return kept.String() + rest
		case literal && !endsInside(rest[:n]):
			kept.WriteString("''")
		default:
			kept.WriteString(rest[:n])
		}
		rest = rest[n:]
	}
	return kept.String()
}

// endsInside says whether a literal has a word that ends a transaction, and no block.
func endsInside(literal string) bool {
	for w := range strings.FieldsFuncSeq(literal, func(r rune) bool { return r < 0x80 && !isWordByte(byte(r)) || r == '$' }) {
		switch txVerb(w) {
		case "COMMIT", "ROLLBACK", "ABORT", "PREPARE":
			return true
		}
	}
	return false
}

// token is the length of what a text begins with, and whether that is a literal or a quoted name. 0: there is no telling.
func token(text string) (n int, literal bool) {
	switch c := text[0]; {
	case strings.HasPrefix(text, "--"):
		if n = strings.IndexAny(text, "\r\n"); n < 0 {
			n = len(text)
		}
		return n, false
	case strings.HasPrefix(text, "/*"):
		rest, _ := pastBlock(text)
		return len(text) - len(rest), false
	case c == '\'':
		n = quoted(text)
		if strings.IndexByte(text[:n], '\\') >= 0 {
			return 0, false
		}
		return n, true
	case c == '"':
		return quoted(text), true
	case c == '$' && (len(text) == 1 || text[1] < '0' || text[1] > '9'):
		return dollarQuoted(text), true
	case isWordByte(c):
		return wordOrEscaped(text)
	default:
		return 1, false
	}
}

// wordOrEscaped is token for a name, a number, a parameter, or a literal with escapes: E'...'.
func wordOrEscaped(text string) (n int, literal bool) {
	for n < len(text) && isWordByte(text[n]) {
		n++
	}
	c := text[0]
	switch {
	case n == 1 && c|0x20 == 'e' && strings.HasPrefix(text[1:], "'"):
		n = escaped(text)
		return n, n > 0
	case (c >= '0' && c <= '9' || c == '$') && strings.IndexByte(text[1:n], '$') >= 0:
		return 0, false // 1$$: a literal begins within it, where depends on the server's version
	default:
		return n, false
	}
}

// quoted is the length of what stands between two quotes of the kind that the text begins with; a doubled one ends and begins anew,
// which comes to the same. 0: it has no end.
func quoted(text string) int {
	end := strings.IndexByte(text[1:], text[0])
	if end < 0 {
		return 0
	}
	return end + len("''")
}

// escaped is the length of a literal with escapes. 0: it has no end.
func escaped(text string) int {
	for n := len("E'"); n < len(text); n++ {
		switch text[n] {
		case '\\':
			n++
		case '\'':
			return n + 1
		}
	}
	return 0
}

// dollarQuoted is the length of a literal like $tag$...$tag$. 0: it is none, or has no end.
func dollarQuoted(text string) int {
	end := strings.IndexByte(text[1:], '$') + len("$")
	if end == 0 {
		return 0
	}
	tag := text[:end+1]
	for i := range tag[1:end] {
		if !isWordByte(tag[i+1]) {
			return 0
		}
	}
	body := strings.Index(text[len(tag):], tag)
	if body < 0 {
		return 0
	}
	return len(tag) + body + len(tag)
}
