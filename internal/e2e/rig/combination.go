package rig

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// Combination is one of the four ways to run managedpg: each base driver, under each governor of the pool.
type Combination struct {
	Base     string // pgx or pq
	Governed bool   // by the driver: pool_size is given
}

// Combinations are all four.
var Combinations = []Combination{{Base: "pgx", Governed: false}, {Base: "pgx", Governed: true}, {Base: "pq", Governed: false}, {Base: "pq", Governed: true}}

func (c Combination) String() string {
	if c.Governed {
		return c.Base + ",pool_size"
	}
	return c.Base
}

// DSN adds the combination's keys, and others, to a URL.
func (c Combination) DSN(url string, more ...string) string {
	keys := []string{"base_driver=" + c.Base}
	if c.Governed {
		keys = append(keys, "pool_size=8")
	}
	return WithKeys(url, append(keys, more...)...)
}

// WithKeys adds keys, each as key=value, to a URL.
func WithKeys(url string, keys ...string) string {
	sep := "?"
	if strings.Contains(url, "?") {
		sep = "&"
	}
	return url + sep + strings.Join(keys, "&")
}

// InEachCombination runs a test on a database of its own through each of the four.
func InEachCombination(t *testing.T, f func(t *testing.T, c Combination, db *sql.DB)) {
	for _, c := range Combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			f(t, c, Open(t, c.DSN(pgtest.Database(t))))
		})
	}
}
