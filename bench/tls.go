package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// encrypt makes a server take TLS, with a certificate that no one vouches for.
func encrypt(c *pgtest.Cluster) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	return c.Exec(
		write("server.key", "PRIVATE KEY", private),
		write("server.crt", "CERTIFICATE", certificate),
		"ALTER SYSTEM SET ssl = on",
		"SELECT pg_reload_conf()",
	)
}

// write is a statement that writes a PEM file into the server's data folder. The server does it, since a key must belong
// to whom it runs as.
func write(name, kind string, der []byte) string {
	return fmt.Sprintf("COPY (SELECT string_to_table('%s', E'\\n')) TO PROGRAM 'umask 077; cat > %s'",
		pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), name)
}
