package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// dials says what this machine takes to open connections with bare pgx: no failover is quicker than that.
func dials() (string, error) {
	c, err := pgtest.New(conf)
	if err != nil {
		return "", err
	}
	defer c.Close()
	at := func(parallel int) (first, last []time.Duration, err error) {
		for range 10 {
			took := make([]time.Duration, parallel)
			errs := make([]error, parallel)
			var all sync.WaitGroup
			start := time.Now()
			for i := range parallel {
				all.Go(func() {
					ctx := context.Background()
					conn, err := pgx.Connect(ctx, c.DSN())
					if errs[i] = err; err == nil {
						_, errs[i] = conn.Exec(ctx, "SELECT 1")
						took[i] = time.Since(start)
						conn.Close(ctx)
					}
				})
			}
			all.Wait()
			for _, err := range errs {
				if err != nil {
					return nil, nil, err
				}
			}
			first = append(first, quantile(took, 0))
			last = append(last, quantile(took, 1))
		}
		return first, last, nil
	}
	one, _, err := at(1)
	if err != nil {
		return "", err
	}
	first, last, err := at(workers)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("a bare pgx connection and a SELECT 1 here: %v ms; of %d at once the first %v ms, the last %v ms (medians of 10)",
		ms(quantile(one, 0.5)), workers, ms(quantile(first, 0.5)), ms(quantile(last, 0.5))), nil
}
