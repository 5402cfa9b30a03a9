package failover_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// BenchmarkReadOnlyTx is what a transaction that is READ ONLY costs where it stays, and where it goes to another pool: what is between
// the two is the exchange of the connection. Both lead to one server, so that the network is the same.
//
//	go test -run - -bench ReadOnlyTx ./internal/e2e/failover
func BenchmarkReadOnlyTx(b *testing.B) {
	dsn := pgtest.Database(b)
	for _, base := range []string{"pgx", "pq"} {
		for _, reads := range []string{"false", "true"} {
			b.Run(base+",standby_reads="+reads, func(b *testing.B) {
				db, err := sql.Open("managedpg", rig.WithKeys(dsn, "base_driver="+base, "pool_size=2", "standby_reads="+reads))
				if err != nil {
					b.Fatal(err)
				}
				defer db.Close()
				for b.Loop() {
					tx, err := db.BeginTx(context.Background(), &sql.TxOptions{ReadOnly: true})
					if err != nil {
						b.Fatal(err)
					}
					if err := tx.Commit(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
