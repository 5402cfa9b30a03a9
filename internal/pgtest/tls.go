package pgtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// selfSigned makes a certificate for this machine that nobody vouches for.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "pgtest"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:     []string{"localhost"},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{cert}, PrivateKey: key}, nil
}

// Encrypt makes the server take TLS, with a certificate of its own that nobody vouches for.
func (c *Cluster) Encrypt() error {
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	if err := c.Exec(
		write("server.key", "PRIVATE KEY", key),
		write("server.crt", "CERTIFICATE", cert.Certificate[0]),
		"ALTER SYSTEM SET ssl = on",
		"SELECT pg_reload_conf()",
	); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	return poll(ctx, func() error {
		on, err := c.QueryString("SHOW ssl")
		if err == nil && on != "on" {
			err = fmt.Errorf("ssl is %s", on)
		}
		return err
	})
}

// write is a statement that writes a PEM file into the server's data folder. The server does it, since a key must belong
// to whom it runs as.
func write(name, kind string, der []byte) string {
	return fmt.Sprintf("COPY (SELECT string_to_table('%s', E'\\n')) TO PROGRAM 'umask 077; cat > %s'",
		pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), name)
}
