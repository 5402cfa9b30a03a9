package pgtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Option changes a cluster that is about to be made.
type Option func(*settings)

type settings struct {
	conf []string
	hba  []string
	port int
	own  bool
}

// Conf adds lines to postgresql.conf, each "name=value" with the value as it is, without quotes.
func Conf(lines ...string) Option {
	return func(s *settings) { s.conf = append(s.conf, lines...) }
}

// HBA replaces pg_hba.conf, which otherwise trusts everyone on this machine. Two lines stay in front of these: the
// superuser comes in over the Unix socket, which is how Exec and its like connect, and may replicate.
func HBA(lines ...string) Option {
	return func(s *settings) { s.hba = append(s.hba, lines...) }
}

// OwnSystem gives the cluster a system identifier of its own, which takes half a second longer. The others are copies of
// one another, and to whoever compares identifiers and timelines they are one system.
func OwnSystem() Option {
	return func(s *settings) { s.own = true }
}

// Port asks for a fixed port; it is an error when that one is taken.
func Port(port int) Option {
	return func(s *settings) { s.port = port }
}

// defaults make a server quick rather than safe, and one to which a standby can be attached at any time. Shared memory
// lies in the data folder, so that a killed server leaves none of it behind.
var defaults = []string{
	"listen_addresses=127.0.0.1",
	"max_connections=100",
	"fsync=off",
	"full_page_writes=off",
	"dynamic_shared_memory_type=mmap",
	"wal_log_hints=on",
	"max_wal_senders=5",
	"wal_keep_size=64MB",
	"wal_retrieve_retry_interval=200ms",
	"wal_sender_timeout=3s",
	"wal_receiver_timeout=3s",
}

// hbaKept is what the package needs for itself.
var hbaKept = []string{
	"local all         postgres              trust",
	"host  replication postgres 127.0.0.1/32 trust",
}

// configure appends to the configuration in the data folder, where the last word on a setting wins. The file, unlike the
// command line, leaves ALTER SYSTEM its say.
func (c *Cluster) configure(before ...string) error {
	var conf strings.Builder
	for _, line := range slices.Concat(before, c.set.conf) {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return fmt.Errorf("pgtest: setting %q is not name=value", line)
		}
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''"))
	}
	if err := appendFile(filepath.Join(c.data(), "postgresql.conf"), conf.String()); err != nil {
		return err
	}
	if c.set.hba == nil {
		return nil
	}
	hba := strings.Join(slices.Concat(hbaKept, c.set.hba), "\n") + "\n"
	// WriteFile keeps the owner of a file that exists, which need not be who runs this.
	return os.WriteFile(filepath.Join(c.data(), "pg_hba.conf"), []byte(hba), 0o600)
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
