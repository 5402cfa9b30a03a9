package dsn

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Setting is one key of a DSN and its value, decoded.
type Setting struct{ Key, Value string }

// Settings is a DSN taken apart. Of a repeated key there is only the last, as in libpq, but for the Reader's Lists.
type Settings []Setting

// Hidden stands for a value that isn't shown.
const Hidden = "xxxxx"

const space = " \t\n\r\v\f" // libpq's isspace

// Empty says that a DSN says nothing.
func Empty(dsn string) bool { return strings.Trim(dsn, space) == "" }

func isURL(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}

// Split takes a DSN of either form apart. asPq reads a URL's query as lib/pq does, where it differs from libpq and pgx:
// a plus is a space, and an empty value is no value. Its errors say what is wrong and where, never what it reads there:
// in a DSN that can't be taken apart, anything may be the password.
func (r Reader) Split(dsn string, asPq bool) (Settings, error) {
	if i := strings.IndexByte(dsn, 0); i >= 0 {
		return nil, fmt.Errorf("a NUL byte at position %d of the DSN", i+1)
	}
	if !utf8.ValidString(dsn) {
		return nil, errors.New("the DSN is not valid UTF-8")
	}
	if isURL(dsn) {
		return r.splitURL(dsn, asPq)
	}
	return r.splitKeywords(dsn)
}

// splitKeywords follows libpq's conninfo_parse.
func (r Reader) splitKeywords(dsn string) (Settings, error) {
	var s Settings
	position := func(rest string) int { return len(dsn) - len(rest) + 1 }
	for rest := strings.TrimLeft(dsn, space); rest != ""; rest = strings.TrimLeft(rest, space) {
		end := strings.IndexAny(rest, "="+space)
		if end < 0 {
			end = len(rest)
		}
		name, at := rest[:end], position(rest)
		if !isKey(name) {
			return nil, fmt.Errorf("no key at position %d of the DSN; want key=value pairs, or a URL that begins with postgres://", at)
		}
		rest = strings.TrimLeft(rest[end:], space)
		if !strings.HasPrefix(rest, "=") {
			return nil, fmt.Errorf("a word without = at position %d of the DSN (a value with spaces goes in single quotes)", at)
		}
		rest = strings.TrimLeft(rest[1:], space)

		at = position(rest)
		quoted := strings.HasPrefix(rest, "'")
		if quoted {
			rest = rest[1:]
		}
		value, n, closed := unescape(rest, quoted)
		if !closed {
			return nil, fmt.Errorf("the quote at position %d of the DSN is not closed", at)
		}
		rest = rest[n:]
		if err := r.add(&s, name, value); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// unescape reads a value up to its closing quote or, unquoted, the next space, and says how much of the text that took.
func unescape(text string, quoted bool) (value string, n int, closed bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			if i++; i < len(text) {
				b.WriteByte(text[i])
			}
		case quoted && c == '\'':
			return b.String(), i + 1, true
		case !quoted && strings.IndexByte(space, c) >= 0:
			return b.String(), i, true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), len(text), !quoted
}

// splitURL follows libpq's conninfo_uri_parse_options, as pgx does, and is stricter where a password that was not
// percent-encoded would end up in a host, port or database name.
func (r Reader) splitURL(dsn string, asPq bool) (Settings, error) {
	if i := strings.IndexFunc(dsn, unicode.IsControl); i >= 0 {
		return nil, fmt.Errorf("a control character or line break at position %d of the URL", i+1)
	}
	var s Settings
	_, rest, _ := strings.Cut(dsn, "://")

	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		user, password, _ := strings.Cut(rest[:i], ":")
		rest = rest[i+1:]
		if strings.Contains(user, "?") {
			return nil, errors.New("a ? in the user name of the URL: write it %3F, and an @ anywhere after the host %40")
		}
		if err := r.addDecoded(&s, "user", user, true); err != nil {
			return nil, err
		}
		if err := r.addDecoded(&s, "password", password, true); err != nil {
			return nil, err
		}
	}

	hosts, ports, rest, err := splitHosts(rest)
	if err != nil {
		return nil, err
	}
	if err := r.addDecoded(&s, "host", hosts, true); err != nil {
		return nil, err
	}
	if err := r.addDecoded(&s, "port", ports, true); err != nil {
		return nil, err
	}

	path, query, _ := strings.Cut(rest, "?")
	path = strings.TrimPrefix(path, "/")
	if strings.Contains(path, "@") {
		return nil, errors.New("an @ in the database name of the URL: write it %40, and a / in the password %2F")
	}
	if err := r.addDecoded(&s, "dbname", path, true); err != nil {
		return nil, err
	}

	for i := 1; query != ""; i++ {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if strings.Count(pair, "=") != 1 {
			return nil, fmt.Errorf("parameter %d of the URL's query: want key=value (in a value & is written %%26, and = %%3D)", i)
		}
		if err := r.addQuery(&s, pair, asPq); err != nil {
			return nil, fmt.Errorf("parameter %d of the URL's query: %w", i, err)
		}
	}
	return s, nil
}

// splitHosts reads host[:port],host[:port]... and gives libpq's two lists, aligned. An empty port is libpq's default.
func splitHosts(authority string) (hosts, ports, rest string, err error) {
	end := strings.IndexAny(authority, "/?")
	if end < 0 {
		end = len(authority)
	}
	authority, rest = authority[:end], authority[end:]
	var hostList, portList []string
	for item := range strings.SplitSeq(authority, ",") {
		host, port, _ := strings.Cut(item, ":")
		if strings.HasPrefix(item, "[") {
			var closed bool
			host, port, closed = strings.Cut(item[1:], "]")
			if !closed || host == "" || port != "" && port[0] != ':' {
				return "", "", "", errors.New("an IPv6 address in the URL: want [address] or [address]:port")
			}
			port = strings.TrimPrefix(port, ":")
		}
		if strings.Contains(host, "@") {
			return "", "", "", errors.New("a second @ in the URL: an @ in a user name or password is written %40")
		}
		if port != "" && !isPort(port) {
			return "", "", "", errors.New("a port in the URL: want a number from 1 to 65535 (a / in a password is written %2F)")
		}
		hostList, portList = append(hostList, host), append(portList, port)
	}
	// Of several hosts without a port, this list has libpq's default for each, and so keeps PGPORT out, as libpq does.
	return strings.Join(hostList, ","), strings.Join(portList, ","), rest, nil
}

// addQuery reads one key=value of a URL's query.
func (r Reader) addQuery(s *Settings, pair string, asPq bool) error {
	name, value, _ := strings.Cut(pair, "=")
	name, err := decode(name)
	if err != nil || !isKey(name) {
		return errors.New("its key is none")
	}
	if asPq {
		value = strings.ReplaceAll(value, "+", "%20")
		if value == "" && !slices.Contains(r.Own, name) {
			return nil
		}
	}
	if name == "ssl" && value == "true" { // JDBC's spelling, which libpq takes too
		name, value = "sslmode", "require"
	}
	return r.addDecoded(s, name, value, false)
}

func (r Reader) addDecoded(s *Settings, name, value string, skipEmpty bool) error {
	value, err := decode(value)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if value == "" && skipEmpty {
		return nil
	}
	return r.add(s, name, value)
}

// decode follows libpq's conninfo_uri_decode.
func decode(raw string) (string, error) {
	raw = strings.Trim(raw, " ")
	if strings.Contains(raw, " ") {
		return "", errors.New("a space is written %20")
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			b.WriteByte(raw[i])
			continue
		}
		if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
			return "", errors.New("a % without two hexadecimal digits (a % itself is written %25)")
		}
		b.WriteByte(unhex(raw[i+1])<<4 | unhex(raw[i+2]))
		i += 2
	}
	switch value := b.String(); {
	case strings.IndexByte(value, 0) >= 0:
		return "", errors.New("%00 is not allowed")
	case !utf8.ValidString(value):
		return "", errors.New("it is not valid UTF-8 when decoded")
	default:
		return value, nil
	}
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// isKey: what can be a parameter of libpq's or of the server's.
func isKey(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_.-$", r)
	})
}

// add keeps the last of a repeated key.
func (r Reader) add(s *Settings, name, value string) error {
	if name == "database" { // as pgx and lib/pq allow
		name = "dbname"
	}
	switch name {
	case "host", "hostaddr", "port", "user", "dbname":
		if strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("%s holds a control character or line break", name)
		}
	}
	switch name {
	case "host":
		for h := range strings.SplitSeq(value, ",") {
			if strings.HasPrefix(h, "[") {
				return BadValue("host", h, "an IPv6 address without brackets")
			}
			if strings.Contains(h, "://") || strings.LastIndexByte(h, '@') > 0 {
				return errors.New("host holds a URL or a user name: a DSN that is a URL goes in place of the whole")
			}
		}
	case "dbname":
		if strings.Contains(value, "://") || strings.Contains(value, "=") {
			return errors.New("dbname holds a DSN: that goes in place of the whole")
		}
	case "port":
		ports := strings.Split(value, ",")
		for i, p := range ports {
			if p == "" {
				ports[i] = defaultPort
			} else if !isPort(p) {
				return BadValue("port", p, "a number from 1 to 65535")
			}
		}
		value = strings.Join(ports, ",")
	}
	if !slices.Contains(r.Lists, name) {
		for i := range *s {
			if (*s)[i].Key == name {
				(*s)[i].Value = value
				return nil
			}
		}
	}
	*s = append(*s, Setting{name, value})
	return nil
}

// Value is that of the last setting of that key.
func (s Settings) Value(name string) (string, bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i].Key == name {
			return s[i].Value, true
		}
	}
	return "", false
}

// With is a copy in which the given settings stand in place of those of the same key.
func (s Settings) With(others ...Setting) Settings {
	var r Settings
	for _, own := range s {
		if _, ok := Settings(others).Value(own.Key); !ok {
			r = append(r, own)
		}
	}
	return append(r, others...)
}

// Redacted is a copy that shows only the values which are known to hold no secret.
func (s Settings) Redacted() Settings {
	r := make(Settings, len(s))
	for i, own := range s {
		if r[i] = own; baseKeys[own.Key]&harmless == 0 {
			r[i].Value = Hidden
		}
	}
	return r
}

// String is the DSN in key=value form.
func (s Settings) String() string {
	var b strings.Builder
	for i, own := range s {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(own.Key + "=" + Quote(own.Value))
	}
	return b.String()
}

// Quote writes a value as libpq reads it back.
func Quote(value string) string {
	plain := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_.,:/+-@%#[]", r)
	}
	if value != "" && !strings.ContainsFunc(value, func(r rune) bool { return !plain(r) }) {
		return value
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// SplitList splits a list of DSNs at the commas before a URL: within one a comma separates its hosts.
func SplitList(list string) []string {
	var dsns []string
	from := 0
	for i := range len(list) + 1 {
		if i < len(list) && (list[i] != ',' || !isURL(strings.TrimLeft(list[i+1:], space))) {
			continue
		}
		if dsn := strings.Trim(list[from:i], space+","); dsn != "" {
			dsns = append(dsns, dsn)
		}
		from = i + 1
	}
	return dsns
}
