package wire

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// message is one of the server's, as it is on the wire.
func message(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))
	return append(b, body...)
}

func TestStartupFindsKeyAndRole(t *testing.T) {
	const key = "\x00\x00\x00\x07secret of any length"
	whole := bytes.Join([][]byte{
		message('R', "\x00\x00\x00\x00"), message('S', "TimeZone\x00UTC\x00"), message('S', "in_hot_standby\x00off\x00"),
		message('S', "default_transaction_read_only\x00on\x00"), message('K', key), message('Z', "I"),
	}, nil)
	for name, c := range map[string]struct {
		chunks [][]byte
		want   string
	}{
		"at once":                {[][]byte{whole}, key},
		"in two parts":           {[][]byte{whole[:20], whole[20:]}, key},
		"encryption declined":    {[][]byte{[]byte("N"), whole}, key},
		"encrypted":              {[][]byte{[]byte("S"), whole}, ""},
		"refused":                {[][]byte{message('E', "SFATAL\x00C28000\x00\x00")}, ""},
		"ready without a key":    {[][]byte{message('R', "\x00\x00\x00\x00"), message('Z', "I"), message('K', key)}, ""},
		"not PostgreSQL at all":  {[][]byte{[]byte("HTTP/1.1 400 Bad Request\r\n\r\n")}, ""},
		"a length that is a lie": {[][]byte{{'R', 0, 0, 0, 1}, whole}, ""},
	} {
		var s startup
		var got backendKey
		var over bool
		for _, chunk := range c.chunks {
			if got, over = s.read(chunk); over {
				break
			}
		}
		if !over || string(got) != c.want {
			t.Errorf("%s: got %q (over: %v), want %q", name, got, over, c.want)
		}
		if want := (Role{InHotStandby: "off", DefaultTransactionReadOnly: "on"}); c.want != "" && s.role != want {
			t.Errorf("%s: the role is %v, want %v", name, s.role, want)
		}
	}
	for i := range whole {
		var s startup
		var got backendKey
		for _, b := range [][]byte{whole[:i], whole[i:]} {
			if key, over := s.read(b); over {
				got = key
				break
			}
		}
		if want := key; string(got) != want && i != 1 { // a first byte that comes alone answers a request for encryption
			t.Errorf("cut at %d: got %q", i, got)
		}
	}
}
