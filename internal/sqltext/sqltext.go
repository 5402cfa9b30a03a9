package sqltext

import (
	"iter"
	"strings"
)

// Tx is what is known of a session's transaction.
type Tx int8

const (
	TxNone Tx = iota
	TxReadWrite
	TxReadOnly
	TxUnclear // a text that could begin or end one failed somewhere
)

// MayCommit says whether a text, sent inside a transaction, may have made something permanent: it commits, or it rolls
// back and goes on with statements of its own.
func MayCommit(text string) bool {
	for verb, rest := range txVerbs(text) {
		switch verb {
		case "COMMIT", "END":
			return true
		case "PREPARE":
			if next, _ := word(rest); next == "TRANSACTION" {
				return true
			}
		case "ROLLBACK", "ABORT":
			if _, more, _ := strings.Cut(rest, ";"); !toSavepoint(rest) && strings.TrimSpace(more) != "" {
				return true
			}
		}
	}
	return false
}

// MayEnd says whether a text, sent inside a transaction, may have ended it in any way.
func MayEnd(text string) bool {
	if !TouchesTx(text) {
		return false
	}
	for verb, rest := range txVerbs(text) {
		switch verb {
		case "COMMIT", "END":
			return true
		case "PREPARE":
			if next, _ := word(rest); next == "TRANSACTION" {
				return true
			}
		case "ROLLBACK", "ABORT":
			if !toSavepoint(rest) {
				return true
			}
		}
	}
	return false
}

// TxAfter is the transaction that a session is in after a text has run, if it was in this one before. A verb that may be
// none leaves that unclear.
func TxAfter(text string, tx Tx) Tx {
	text = withoutLiterals(text)
	_, afterFirst := word(text)
	clear := !mayHide(text)
	for verb, rest := range txVerbs(text) {
		next := txStep(verb, rest, tx)
		if next != tx && !clear && len(rest) != len(afterFirst) {
			next = TxUnclear
		}
		tx = next
	}
	return tx
}

// txStep is the transaction after one statement, of which the verb and the rest are given.
func txStep(verb, rest string, tx Tx) Tx {
	switch verb {
	case "BEGIN", "START":
		if tx == TxNone || tx == TxUnclear {
			return TxReadWrite
		}
	case "COMMIT", "END":
		return afterEnd(rest)
	case "ROLLBACK", "ABORT":
		if !toSavepoint(rest) {
			return afterEnd(rest)
		}
	case "PREPARE":
		if next, _ := word(rest); next == "TRANSACTION" {
			return TxNone
		}
	}
	return tx
}

// mayHide says whether what looks like a verb may be part of something else: a literal, a comment, a function's body.
func mayHide(text string) bool {
	return strings.ContainsAny(text, `'"$`) || strings.Contains(text, "--") || strings.Contains(text, "/*") ||
		strings.Contains(strings.ToUpper(text), "ATOMIC")
}

// afterEnd knows COMMIT AND CHAIN, which begins the next transaction at once, from COMMIT.
func afterEnd(rest string) Tx {
	next, rest := pastTransaction(rest)
	if next == "AND" {
		if next, _ = word(rest); next == "CHAIN" {
			return TxReadWrite
		}
	}
	return TxNone
}

func toSavepoint(rest string) bool {
	next, _ := pastTransaction(rest)
	return next == "TO"
}

// pastTransaction is the next word but for the noise words WORK and TRANSACTION.
func pastTransaction(rest string) (next, after string) {
	next, after = word(rest)
	if next == "WORK" || next == "TRANSACTION" {
		next, after = word(after)
	}
	return next, after
}

// txVerbs yields the words of a text that begin or end transactions and may start a statement, and what follows each.
func txVerbs(text string) iter.Seq2[string, string] {
	text = withoutLiterals(text)
	return func(yield func(verb, rest string) bool) {
		for i := 0; i < len(text); {
			if !isWordByte(text[i]) {
				i++
				continue
			}
			end := i
			for end < len(text) && isWordByte(text[end]) {
				end++
			}
			if verb := txVerb(text[i:end]); verb != "" && mayStart(text[:i]) && !yield(verb, text[end:]) {
				return
			}
			i = end
		}
	}
}

func txVerb(w string) string {
	for _, verb := range [...]string{"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE"} {
		if len(w) == len(verb) && strings.EqualFold(w, verb) {
			return verb
		}
	}
	return ""
}

// mayStart says whether a statement could start after this: the text's beginning, a semicolon, a comment.
func mayStart(before string) bool {
	before = strings.TrimRight(before, " \t\r\n\f\v")
	lastLine := before[strings.LastIndexByte(before, '\n')+1:]
	return before == "" || strings.HasSuffix(before, ";") || strings.HasSuffix(before, "*/") ||
		strings.Contains(lastLine, "--")
}

// TouchesTx is a quick no for most texts: whether TxAfter could find anything in it.
func TouchesTx(text string) bool {
	if strings.IndexByte(text, ';') >= 0 {
		return true
	}
	first, _ := word(text)
	return txVerb(first) != "" || first == ""
}

// HasTxVerb says whether a text could begin or end a transaction.
func HasTxVerb(text string) bool {
	for range txVerbs(text) {
		return true
	}
	return false
}

// MayAllowWrites says whether a text could make a READ ONLY transaction a writing one.
func MayAllowWrites(text string) bool {
	text = strings.ToUpper(text)
	return strings.Contains(text, "WRITE") || strings.Contains(text, "READ_ONLY")
}

// MayWrite says whether a text is more than a query: one that a function which it calls could still make write.
func MayWrite(text string) bool {
	switch first, _ := word(text); first {
	case "SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN", "FETCH":
	default:
		return true
	}
	for w := range strings.FieldsFuncSeq(strings.ToUpper(text), func(r rune) bool { return r < 0x80 && !isWordByte(byte(r)) }) {
		switch w {
		case "INSERT", "UPDATE", "DELETE", "MERGE", "INTO", "CREATE":
			return true
		}
	}
	_, more, several := strings.Cut(text, ";")
	return several && strings.TrimSpace(more) != ""
}

// MayForget is a quick no for most texts: whether ForgetsStatements could find anything in it. A text that is one statement and begins with
// neither a D nor white space or a comment has nothing.
func MayForget(text string) bool {
	return text != "" && (mayHideD[text[0]] || strings.IndexByte(text, ';') >= 0)
}

// mayHideD are the bytes after which DEALLOCATE, DISCARD or DO may be a text's first word, or which begin it.
var mayHideD = func() (bytes [256]bool) {
	for b := range byte(' ' + 1) {
		bytes[b] = true
	}
	bytes['d'], bytes['D'], bytes['-'], bytes['/'] = true, true, true, true
	return bytes
}()

// ForgetsStatements says whether the text may be one after which the server has no prepared statements any more: wherever in it, in a
// DO block too, DEALLOCATE or DISCARD stands, and ALL.
func ForgetsStatements(text string) bool {
	if !MayForget(text) {
		return false
	}
	_, after, deallocates := strings.Cut(strings.ToUpper(text), "DEALLOCATE")
	if !deallocates {
		_, after, _ = strings.Cut(strings.ToUpper(text), "DISCARD")
	}
	return strings.Contains(after, "ALL")
}

// IsCopy says whether lib/pq takes the text for a COPY, whose prepared form is a stream that can be used once. It goes by
// the first four letters, and lets a comment within a comment end the outer one too.
func IsCopy(text string) bool {
	if start, nested := pastComments(text); !nested {
		text = start
	} else {
		return true
	}
	return len(text) >= 4 && strings.EqualFold(text[:4], "COPY")
}

// word is the first word of a text in capitals, past white space and comments, and what follows it; "" if it starts with
// anything else.
func word(text string) (first, rest string) {
	text, _ = pastComments(text)
	n := 0
	for n < len(text) && isWordByte(text[n]) {
		n++
	}
	return strings.ToUpper(text[:n]), text[n:]
}

// pastComments is what follows the white space and comments at a text's beginning, and whether one of those was in
// another: only that is where readers disagree.
func pastComments(text string) (rest string, nested bool) {
	for {
		text = strings.TrimLeft(text, " \t\r\n\f\v")
		switch {
		case strings.HasPrefix(text, "--"):
			end := strings.IndexAny(text, "\r\n")
			if end < 0 {
				return "", nested
			}
			text = text[end:]
		case strings.HasPrefix(text, "/*"):
			var inner bool
			text, inner = pastBlock(text)
			nested = nested || inner
		default:
			return text, nested
		}
	}
}

// pastBlock is what follows the comment that the text begins with.
func pastBlock(text string) (rest string, nested bool) {
	for depth, i := 0, 0; i < len(text); i++ {
		switch {
		case strings.HasPrefix(text[i:], "/*"):
			nested = nested || depth > 0
			depth++
			i++
		case strings.HasPrefix(text[i:], "*/"):
			depth--
			i++
			if depth == 0 {
				return text[i+1:], nested
			}
		}
	}
	return "", nested
}

func isWordByte(b byte) bool {
	return b|0x20 >= 'a' && b|0x20 <= 'z' || b >= '0' && b <= '9' || b == '_' || b == '$' || b >= 0x80
}
