package doubling_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats"
)

// lossyFault is a way to lose an answer.
type lossyFault struct {
	name string
	pgtest.Fault
	// share says which part of the calls meets it with one policy, 2 for every other one. Each case costs PostgreSQL a new
	// session, its dearest operation, so the policies share the calls out among themselves.
	share int
}

// No statement is sent twice, and who sent one that may have run is told so.
func TestNoStatementRunsTwice(t *testing.T) {
	faults := []lossyFault{
		{"reset", pgtest.Fault{Do: pgtest.Reset}, 2},
		{"reset before it ran", pgtest.Fault{Do: pgtest.Reset, Before: true}, 2},
		{"closed", pgtest.Fault{Do: pgtest.CloseQuietly}, 2},
		{"FATAL 57P01", pgtest.Fault{Do: pgtest.Fatal("57P01")}, 2},
	}
	eachPool(t, func(t *testing.T, l *lossy) { l.loseEach(t, faults) }, pgtest.DropCancels())
}

func TestNoStatementRunsTwiceWithTLS(t *testing.T) {
	faults := []lossyFault{
		{"reset", pgtest.Fault{Do: pgtest.Reset}, 4},
		{},
		{"closed", pgtest.Fault{Do: pgtest.CloseQuietly}, 4},
	}
	eachPool(t, func(t *testing.T, l *lossy) { l.loseEach(t, faults) }, pgtest.DropCancels(), pgtest.WithTLS())
}

func (l *lossy) loseEach(t *testing.T, faults []lossyFault) {
	for i, f := range faults {
		for j, c := range lostCalls(l.base) {
			if f.Do == nil || (i+j)%f.share != l.policy() {
				continue
			}
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				l := l.as(t)
				kept, inserted, err := l.lose(context.Background(), c, f.Fault)
				l.wantError(err, c.want)
				switch {
				case !f.Before || c.want == nil:
					l.wantRows(kept, inserted, c)
				case kept > 0 || inserted > c.inserted:
					l.Errorf("kept %d of %d rows inserted by what never ran", kept, inserted)
				}
				if f.name == "FATAL 57P01" && l.base == "pgx" && c.want != nil && rig.SQLState(err) != "57P01" {
					l.Errorf("the server's error is not in %v", err) // lib/pq itself drops it
				}
				l.goesOn()
			})
		}
	}
}

// The reason for it all. Should a new version of a base driver fail here, it has got better.
func TestBareDriversDouble(t *testing.T) {
	faults := map[string]pgtest.Action{"reset": pgtest.Reset, "closed": pgtest.CloseQuietly, "FATAL 57P01": pgtest.Fatal("57P01")}
	// pgx takes a connection that breaks for one that was closed before, if the statement has no arguments. lib/pq takes
	// the end of a stream for a connection that was bad before, whatever it was about to hear.
	doubles := func(driver, fault, form string) bool {
		if driver == "pgx" {
			return fault != "FATAL 57P01" && strings.HasPrefix(form, "exec") && form != "exec with argument"
		}
		return fault != "reset"
	}
	t.Parallel()
	dsn := pgtest.Database(t)
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr(), pgtest.DropCancels())
			l := openLossy(t, driver, dsn, proxy.DSN(dsn), "")
			l.proxy = proxy
			for name, do := range faults {
				for _, f := range insertForms {
					if !doubles(driver, name, f.name) {
						continue
					}
					t.Run(name+"/"+f.name, func(t *testing.T) {
						l := l.as(t)
						kept, _, err := l.lose(context.Background(), f.lost(), pgtest.Fault{Do: do})
						if err != nil || kept != 2*f.rows {
							t.Errorf("%d rows instead of %d; error %v", kept, 2*f.rows, err)
						}
					})
				}
			}
		})
	}
}

// A context that ends while the answer is awaited gives its error too. The server says nothing at all.
func TestContextEndsBeforeTheAnswer(t *testing.T) {
	eachPool(t, func(t *testing.T, l *lossy) {
		for i, c := range lostCalls(l.base) {
			share := 2
			if l.base == "pq" {
				share = 19 // it has a second for the answer to its cancel request; package conn tests call by call
			}
			if i%share != l.policy() {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				l := l.as(t)
				ctx, end := deadline()
				kept, inserted, err := l.lose(ctx, c, pgtest.Fault{Do: pgtest.Hang, Hook: end})
				l.proxy.Release()
				switch {
				case c.want == nil:
					if err != context.DeadlineExceeded || kept != 0 {
						t.Errorf("kept %d rows; error %v", kept, err)
					}
				case !errors.Is(err, context.DeadlineExceeded):
					t.Errorf("the context's error is not in %v", err)
				default:
					l.wantError(err, c.want)
					l.wantRows(kept, inserted, c)
				}
				l.goesOn()
			})
		}
	}, pgtest.DropCancels())
}

// A cancelled statement that the server answered did not run, and its outcome is known.
func TestContextEndsAndTheServerSaysSo(t *testing.T) {
	const slow = insert + "; SELECT pg_sleep(60)"
	eachPool(t, func(t *testing.T, l *lossy) {
		for _, place := range []string{"outside a transaction", "in a transaction"} {
			t.Run(place, func(t *testing.T) {
				l := l.as(t)
				ctx, end := deadline()
				c := lostCall{on: onInsert, run: func(ctx context.Context, l *lossy) error {
					_, err := l.db.ExecContext(ctx, slow)
					return err
				}}
				if place == "in a transaction" {
					c.run = func(ctx context.Context, l *lossy) error {
						tx := l.begin(context.Background())
						_, err := tx.ExecContext(ctx, slow)
						l.wantError(tx.Commit(), errBase) // it was aborted, and the connection is whole
						return err
					}
				}
				asleep := func() {
					l.eventually("it sleeps", func() bool { return l.count("wait_event = 'PgSleep'") == 1 })
					end()
				}
				kept, inserted, err := l.lose(ctx, c, pgtest.Fault{Hook: asleep, NoWait: true, Do: pgtest.Answer(nil)})
				if rig.SQLState(err) != "57014" {
					t.Errorf("the server's error is not in %v", err)
				}
				l.wantError(err, errBase)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the context's error is not in %v", err)
				}
				if kept != 0 || inserted != 1 {
					t.Errorf("kept %d of %d rows", kept, inserted)
				}
				l.goesOn()
			})
		}
	})
}

// A context that has ended before anything was sent gives its error, and nothing else.
func TestContextEndedBeforeTheStatement(t *testing.T) {
	eachPool(t, func(t *testing.T, l *lossy) {
		st := l.prepare(l.db, insertArg)
		c := l.conn()
		tx := l.begin(context.Background())
		ctx, end := deadline()
		end()
		for name, call := range map[string]func() error{
			"exec":                               func() error { _, err := l.db.ExecContext(ctx, insert); return err },
			"prepared exec":                      func() error { _, err := st.ExecContext(ctx, 1); return err },
			"prepare":                            func() error { _, err := l.db.PrepareContext(ctx, neverSeen()); return err },
			"begin":                              func() error { _, err := l.db.BeginTx(ctx, nil); return err },
			"exec on a connection":               func() error { _, err := c.ExecContext(ctx, insert); return err },
			"exec with argument on a connection": func() error { _, err := c.ExecContext(ctx, insertArg, 1); return err },
			"query on a connection":              func() error { return c.QueryRowContext(ctx, insert+returning).Scan(new(int)) },
			"prepare on a connection":            func() error { _, err := c.PrepareContext(ctx, neverSeen()); return err },
			"exec in a transaction":              func() error { _, err := tx.ExecContext(ctx, insert); return err },
		} {
			if err := call(); err != context.DeadlineExceeded {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Errorf("the transaction did not go on: %v", err)
		}
		l.exec(c, "SELECT 2")
		if kept, inserted := l.rows(); kept+inserted != 0 {
			t.Errorf("kept %d of %d rows", kept, inserted)
		}
	})
}

func TestContextEndsInTheQueue(t *testing.T) {
	eachPool(t, func(t *testing.T, l *lossy) {
		open, waiting := 1, func() int64 { return l.db.Stats().WaitCount }
		if l.governed {
			pool, _ := managedpg.PoolOf(l.db)
			open, waiting = 4, func() int64 { return pool.Stats().Waiting }
		} else {
			l.db.SetMaxOpenConns(open)
		}
		var holders []*sql.Conn
		for range open {
			holders = append(holders, l.conn())
		}
		ctx, cancel := context.WithCancel(context.Background())
		result := make(chan error)
		go func() {
			_, err := l.db.ExecContext(ctx, insert)
			result <- err
		}()
		l.eventually("it waits", func() bool { return waiting() == 1 })
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) || errors.As(err, new(*conn.LostError)) {
			t.Errorf("got %v", err)
		}
		for _, c := range holders {
			c.Close()
		}
		l.goesOn()
		if kept, inserted := l.rows(); kept+inserted != 0 {
			t.Errorf("kept %d of %d rows", kept, inserted)
		}
	})
}

// What never left is sent on another connection, and nobody notices.
func TestDeadConnectionsGoUnnoticed(t *testing.T) {
	eachPool(t, func(t *testing.T, l *lossy) {
		st := l.prepare(l.db, insertArg)
		for name, kill := range map[string]func(){
			"reset":      l.proxy.ResetAll,
			"terminated": func() { l.count("pg_terminate_backend(pid)") },
		} {
			t.Run(name, func(t *testing.T) {
				l := l.as(t)
				var idle []*sql.Conn
				for range 4 {
					idle = append(idle, l.conn())
				}
				for _, c := range idle {
					c.Close()
				}
				kill()
				l.eventually("they are dead", func() bool { return l.proxy.Connections() == 0 })
				kept, inserted := l.rows()
				var calls sync.WaitGroup
				for _, call := range []func() error{
					func() error { _, err := l.db.Exec(insert); return err },
					func() error { return l.db.QueryRow(insertArg+returning, 1).Scan(new(int)) },
					func() error { _, err := st.Exec(1); return err },
					func() error {
						tx, err := l.db.Begin()
						if err != nil {
							return err
						}
						_, err = tx.Exec(insert)
						return errors.Join(err, tx.Commit())
					},
				} {
					calls.Go(func() { l.wantError(call(), nil) })
				}
				calls.Wait()
				if k, i := l.rows(); k-kept != 4 || i-inserted != 4 {
					t.Errorf("kept %d of %d rows", k-kept, i-inserted)
				}
			})
		}
	})
}

// What the server says of a statement is passed on as it is.
func TestServerErrorsAreNoLoss(t *testing.T) {
	const unique, uniqueArg = "INSERT INTO t (k) VALUES (7)", "INSERT INTO t (k) VALUES ($1)"
	eachPool(t, func(t *testing.T, l *lossy) {
		l.exec(l.db, unique)
		ctx := context.Background()
		for name, call := range map[string]func() error{
			"exec":                         func() error { _, err := l.db.Exec(unique); return err },
			"exec with argument":           func() error { _, err := l.db.Exec(uniqueArg, 7); return err },
			"query":                        func() error { return l.db.QueryRow(unique + returning).Scan(new(int)) },
			"prepared exec":                func() error { _, err := l.prepare(l.db, uniqueArg).Exec(7); return err },
			"exec of a deferred violation": func() error { _, err := l.db.Exec(twice); return err },
			"exec in a transaction": func() error {
				tx := l.begin(context.Background())
				_, err := tx.Exec(unique)
				l.wantError(tx.Commit(), errBase)
				return err
			},
			"COMMIT": func() error {
				tx := l.begin(context.Background())
				l.exec(tx, twice)
				return tx.Commit()
			},
			"COMMIT as text": func() error {
				_, err := l.conn("BEGIN", twice).ExecContext(ctx, "COMMIT")
				return err
			},
		} {
			err := call()
			l.wantError(err, errBase)
			if rig.SQLState(err) != "23505" {
				t.Errorf("%s: got %v", name, err)
			}
			l.goesOn()
		}
		if kept, _ := l.rows(); kept != 1 {
			t.Errorf("%d rows", kept)
		}
	})
}

// A COMMIT whose wait for a synchronous standby was cancelled has committed here, and perhaps nowhere else.
func TestCancelledSynchronousWait(t *testing.T) {
	t.Parallel()
	c := pgtest.Start(t, pgtest.Conf("synchronous_standby_names=nobody"))
	calls := map[string]func(context.Context, *lossy) error{
		"COMMIT":         endCall("COMMIT"),
		"COMMIT as text": endCall("COMMIT as text"),
	}
	for _, f := range insertForms {
		if strings.Contains(f.name, "exec") && f.rows == 1 {
			calls[f.name] = f.lost().run
		}
	}
	for _, base := range []string{"pgx", "pq"} {
		for _, policy := range []string{"", "&pool_size=4"} {
			t.Run(base+policy, func(t *testing.T) {
				t.Parallel()
				l := openLossy(t, "managedpg", c.DSN(), c.DSN(), "&health_check=false&base_driver="+base+policy)
				for name, call := range calls {
					for _, how := range []string{"cancel", "terminate"} {
						t.Run(how+"/"+name, func(t *testing.T) {
							l := l.as(t)
							l.wantError(l.loseStandby(how, call), managedpg.ErrOutcomeUnknown)
							l.goesOn()
						})
					}
				}
				// Rows are read without us: what comes with them is too late to tell, and not the next call's fault.
				l.wantError(l.loseStandby("cancel", insertForms[3].lost().run), nil)
				l.goesOn()
			})
		}
	}
}

// loseStandby makes a call that inserts a row, and ends its wait for a standby.
func (l *lossy) loseStandby(how string, call func(context.Context, *lossy) error) error {
	l.Helper()
	before, _ := l.rows()
	result := make(chan error)
	go func() { result <- call(context.Background(), l) }()
	l.eventually("it waits for a standby", func() bool { return l.count("wait_event = 'SyncRep'") == 1 })
	// Not with AND, which asks its second side too if the first is NULL, as wait_event is of a session at work.
	l.count("CASE wait_event WHEN 'SyncRep' THEN pg_" + how + "_backend(pid) END")
	err := <-result
	if kept, _ := l.rows(); kept != before+1 {
		l.Errorf("%d rows instead of one", kept-before)
	}
	return err
}

func endCall(name string) func(context.Context, *lossy) error {
	i := slices.IndexFunc(lostEnds, func(c lostCall) bool { return c.name == name })
	return lostEnds[i].run
}

// Rows are the base driver's own, and so is the error of those that break off. At least nothing is sent again.
func TestRowsThatBreakOff(t *testing.T) {
	eachPool(t, func(t *testing.T, l *lossy) {
		for _, f := range insertForms {
			if !strings.Contains(f.name, "query") {
				continue
			}
			c := f.lost()
			kept, inserted, err := l.lose(context.Background(), c, pgtest.Fault{Do: pgtest.AnswerUntil('D')})
			if err == nil {
				t.Errorf("%s: no error", f.name)
			}
			l.wantRows(kept, inserted, c)
			l.goesOn()
		}
	}, pgtest.DropCancels())
}

// lib/pq knows severities in the server's language only.
func TestFatalInAnotherLanguage(t *testing.T) {
	translated := (&pgproto3.ErrorResponse{Severity: "致命错误", SeverityUnlocalized: "FATAL", Code: "57P01",
		Message: "由于管理员命令中断联接"})
	raw, err := translated.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	eachPool(t, func(t *testing.T, l *lossy) {
		for _, f := range insertForms {
			if !strings.Contains(f.name, "argument") {
				continue // lib/pq waits for the end of the stream
			}
			c := f.lost()
			broken := func() int64 { return rig.PoolOf(t, l.db).Stats().ClosedBy[stats.ClosedBroken] }
			before := broken()
			kept, inserted, err := l.lose(context.Background(), c, pgtest.Fault{Do: both(pgtest.Answer(raw), pgtest.CloseQuietly)})
			l.wantError(err, managedpg.ErrOutcomeUnknown)
			rig.Eventually(t, "its connection is closed before anybody asks for it", func() bool { return broken() > before })
			l.wantRows(kept, inserted, c)
			l.goesOn()
		}
	}, pgtest.DropCancels(), pgtest.WithTLS())
}

// both is for actions, whose argument has a type that only pgtest can name.
func both[S any](first, then func(S) bool) func(S) bool {
	return func(s S) bool { return first(s) && then(s) }
}

// Whatever the base driver makes of a statement on its way, the bytes tell.
func TestNoStatementRunsTwiceInAnyMode(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	for _, mode := range []string{
		"base_driver=pgx&default_query_exec_mode=cache_describe", "base_driver=pgx&default_query_exec_mode=describe_exec",
		"base_driver=pgx&default_query_exec_mode=exec", "base_driver=pgx&default_query_exec_mode=simple_protocol",
		"base_driver=pq&binary_parameters=yes",
	} {
		proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr(), pgtest.DropCancels())
		l := openLossy(t, "managedpg", dsn, proxy.DSN(dsn), "&health_check=false&"+mode)
		l.proxy = proxy
		for _, f := range insertForms {
			if !strings.Contains(f.name, "argument") && !strings.Contains(f.name, "prepared") {
				continue // always in the simple protocol
			}
			t.Run(mode+"/"+f.name, func(t *testing.T) {
				l := l.as(t)
				kept, _, err := l.lose(context.Background(), f.lost(), pgtest.Fault{Do: pgtest.CloseQuietly})
				l.wantError(err, managedpg.ErrOutcomeUnknown)
				if kept != f.rows {
					t.Errorf("%d rows instead of %d", kept, f.rows)
				}
			})
		}
	}
}

// Of a connector of the user's own pgx's word is taken only for a connection that was closed before the call.
func TestNoStatementRunsTwiceThroughAnothersConnector(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr(), pgtest.DropCancels())
	l := openLossy(t, "pgx", dsn, proxy.DSN(dsn), "")
	l.proxy = proxy
	config, err := pgx.ParseConfig(proxy.DSN(dsn))
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["search_path"] = l.name
	l.db, err = managedpg.OpenDB(&managedpg.Config{Endpoints: []driver.Connector{stdlib.GetConnector(*config)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.db.Close() })
	for _, c := range lostCalls("pgx") {
		t.Run(c.name, func(t *testing.T) {
			l := l.as(t)
			kept, inserted, err := l.lose(context.Background(), c, pgtest.Fault{Do: pgtest.Reset})
			l.wantError(err, c.want)
			l.wantRows(kept, inserted, c)
			l.goesOn()
		})
	}
}
