package doubling_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

var (
	cancelledCalls = flag.Int("cancels", 60, "how many calls of each kind TestWhatACancelledCallIsToldIsTrue cancels")
	cancelSeed     = flag.Uint64("cancelseed", 1, "their random deadlines")
)

// cancelling are the ways to run a statement that a deadline may end.
var cancelling = map[string]func(ctx context.Context, db *sql.DB, id int) error{
	"Exec": func(ctx context.Context, db *sql.DB, id int) error {
		_, err := db.ExecContext(ctx, `INSERT INTO told SELECT $1 FROM pg_sleep(0.002)`, id)
		return err
	},
	"Exec without arguments": func(ctx context.Context, db *sql.DB, id int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf(`INSERT INTO told SELECT %d FROM pg_sleep(0.002)`, id))
		return err
	},
	"Query": func(ctx context.Context, db *sql.DB, id int) error {
		rows, err := db.QueryContext(ctx, `WITH slow AS (SELECT pg_sleep(0.002)) INSERT INTO told SELECT $1 FROM slow RETURNING id`, id)
		if err != nil {
			return err
		}
		return rows.Close() // a deadline that passes now ends the reading, not the INSERT
	},
	"prepared": func(ctx context.Context, db *sql.DB, id int) error {
		st, err := db.Prepare(`INSERT INTO told SELECT $1 FROM pg_sleep(0.002)`)
		if err != nil {
			return err
		}
		defer st.Close()
		_, err = st.ExecContext(ctx, id)
		return err
	},
	"in a transaction": func(ctx context.Context, db *sql.DB, id int) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, `INSERT INTO told SELECT $1 FROM pg_sleep(0.002)`, id); err != nil {
			return err
		}
		return tx.Commit()
	},
	"a transaction": func(ctx context.Context, db *sql.DB, id int) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.Exec(`INSERT INTO told SELECT $1 FROM pg_sleep(0.001)`, id); err != nil {
			return err
		}
		return tx.Commit()
	},
}

// What a call whose deadline passes is told must be true, and its cancel request must hit nobody else: two connections are
// shared with a caller that has no deadline.
func TestWhatACancelledCallIsToldIsTrue(t *testing.T) {
	for _, mode := range []string{
		"base_driver=pgx", "base_driver=pgx&pool_size=2&max_overflow=0", "base_driver=pgx&default_query_exec_mode=simple_protocol",
		"base_driver=pq", "base_driver=pq&pool_size=2&max_overflow=0",
	} {
		t.Run(mode, func(t *testing.T) {
			dsn := pgtest.Database(t)
			db := rig.Open(t, dsn+"&cancel_timeout=5s&"+mode)
			if !strings.Contains(mode, "pool_size") {
				db.SetMaxOpenConns(2)
			}
			rig.Exec(t, db, `CREATE TABLE told (id int PRIMARY KEY)`)

			over := make(chan struct{})
			var bystander sync.WaitGroup
			bystander.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-over:
						return
					default:
					}
					if _, err := db.Exec(`SELECT $1::int FROM pg_sleep(0.0005)`, n); err != nil {
						t.Errorf("a call without a deadline was told: %v", err)
						return
					}
				}
			})
			random := rand.New(rand.NewPCG(*cancelSeed, 0))
			told, kinds := make(map[int]error), make(map[int]string)
			for range *cancelledCalls {
				for kind, call := range cancelling {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.Int64N(int64(6*time.Millisecond))))
					id := len(told)
					told[id] = call(ctx, db, id)
					kinds[id] = kind
					cancel()
				}
			}
			close(over)
			bystander.Wait()

			there := make(map[int]bool)
			rows, err := db.Query(`SELECT id FROM told`)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			for rows.Next() {
				var id int
				if err := rows.Scan(&id); err != nil {
					t.Fatal(err)
				}
				there[id] = true
			}
			var ok, cancelled, unknown, lost int
			for id, err := range told {
				switch {
				case err == nil:
					ok++
					if !there[id] {
						t.Errorf("%s: told that it is there, and it isn't", kinds[id])
					}
				case errors.Is(err, managedpg.ErrOutcomeUnknown):
					unknown++
				case errors.Is(err, managedpg.ErrTxLost): // with its connection, whose cancel request the server didn't take in time
					lost++
					if there[id] {
						t.Errorf("%s: told %v, and it is there", kinds[id], err)
					}
				case errors.Is(err, context.DeadlineExceeded), errors.Is(err, sql.ErrTxDone):
					cancelled++
					if there[id] {
						t.Errorf("%s: told %v, and it is there", kinds[id], err)
					}
				default:
					t.Errorf("%s: %v", kinds[id], err)
				}
			}
			t.Logf("%d ok, %d cancelled, %d unknown, %d lost", ok, cancelled, unknown, lost)
			if ok == 0 || cancelled == 0 || (unknown+lost)*100 > len(told) {
				t.Errorf("want some of either, and at most one of a hundred unknown or lost")
			}
		})
	}
}

// A statement that has to be prepared again isn't sent when its context has ended by then: the cancel request for the preparing, which is still on
// its way, would hit the next one.
func TestNothingFollowsAPrepareThatIsCancelled(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, _ *sql.DB) {
		dsn := pgtest.Database(t)
		proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr())
		db := rig.Open(t, c.DSN(proxy.DSN(dsn), "cancel_timeout=5s"))
		rig.Exec(t, db, "CREATE TABLE late (n int)")
		st, err := db.Prepare("INSERT INTO late VALUES ($1)")
		rig.NoError(t, err)
		defer st.Close()
		rig.Exec(t, db, "DEALLOCATE ALL")
		proxy.Arm(pgtest.Fault{On: pgtest.OnParse("INSERT INTO late"), Do: pgtest.Hang})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { _, err := st.ExecContext(ctx, 1); done <- err }()
		<-proxy.Fired()
		cancel()
		rig.Eventually(t, "a cancel request", func() bool { return proxy.Cancels() > 0 })
		proxy.Release()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it is told %v", err)
		}
		for range 5 {
			rig.Exec(t, db, "SELECT 1")
		}
		if n := rig.Value[int](t, db, "SELECT count(*) FROM late"); n != 0 {
			t.Errorf("it was sent all the same")
		}
	})
}

// A call that runs into its deadline costs no connection: with the bare drivers each costs a session of its own.
func TestDeadlinesCostNoConnection(t *testing.T) {
	const workers, calls, limit = 8, 60, 20 * time.Millisecond
	const slow = workers * calls / 10
	encrypted := pgtest.Start(t)
	rig.NoError(t, encrypted.Encrypt())
	for _, base := range []string{"pgx", "pq"} {
		for _, policy := range []string{"bare", "", "pool_size=8", "tls", "tls&pool_size=8"} {
			settings, tls := strings.CutPrefix(policy, "tls")
			if tls && base == "pq" {
				continue // docs/deadlines.md
			}
			t.Run(base+"/"+policy, func(t *testing.T) {
				dsn := pgtest.Database(t)
				if tls {
					dsn = encrypted.DSNFor("postgres", "sslmode=require")
				}
				var db *sql.DB
				var ok, expired, unknown int64
				var late []time.Duration
				// On a busy machine other calls meet their deadlines too, which is another load than the one meant: then once more.
				for again := 4; again >= 0 && (db == nil || policy != "bare" && expired > slow+slow/8); again-- {
					if db != nil {
						rig.NoError(t, db.Close())
					}
					if policy == "bare" {
						db = rig.OpenWith(t, map[string]string{"pgx": "pgx", "pq": "postgres"}[base], dsn)
					} else {
						db = rig.Open(t, dsn+"&cancel_timeout=5s&connect_timeout=30s&base_driver="+base+"&"+strings.TrimPrefix(settings, "&"))
					}
					db.SetMaxIdleConns(workers)
					rig.Warm(t, db, workers) // the deadlines aren't for dials
					ok, expired, unknown, late = loadWithDeadlines(t, db, workers, calls, limit, policy == "bare")
					if policy == "bare" {
						continue
					}
					if n := rig.PoolOf(t, db).Stats().CancelsUnanswered; unknown > 0 || n > 0 {
						t.Errorf("%d calls of unknown outcome, %d cancels unanswered", unknown, n)
					}
				}
				slices.Sort(late)
				t.Logf("%d ok, %d expired, those late by %v at the median and %v at p99", ok, expired, late[len(late)/2], late[len(late)*99/100])
				if policy == "bare" {
					return
				}
				s := rig.PoolOf(t, db).Stats()
				t.Logf("%d sessions; %d cancels sent, %d confirmed, %d too late",
					s.TotalConnectionsCreated, s.CancelsSent, s.CancelsConfirmed, s.CancelsTooLate)
				// pool_size and max_overflow: a dial may be begun beside a connection that is being made fit after its cancel if
				// that takes longer.
				most := int64(workers + 10)
				if tls { // each cancel request is a handshake, which takes its time on a busy machine, and others dial meanwhile
					most += expired / 4
				}
				if s.TotalConnectionsCreated > most {
					t.Errorf("%d sessions were begun for %d workers and %d deadlines", s.TotalConnectionsCreated, workers, expired)
				}
				if s.CancelsConfirmed < slow/2 {
					t.Errorf("%d cancels confirmed of %d slow calls", s.CancelsConfirmed, slow)
				}
			})
		}
	}
}

// loadWithDeadlines has each worker make so many calls with the limit, of which a tenth take too long, and counts what they are told.
func loadWithDeadlines(t *testing.T, db *sql.DB, workers, calls int, limit time.Duration, bare bool) (ok, expired, unknown int64, late []time.Duration) {
	var mu sync.Mutex
	var load sync.WaitGroup
	for w := range workers {
		load.Go(func() {
			for n := range calls {
				text := "SELECT 1"
				if (n+w)%10 == 0 {
					text = "SELECT pg_sleep(5)"
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				began := time.Now()
				_, err := db.ExecContext(ctx, text)
				took := time.Since(began)
				cancel()
				mu.Lock()
				if text != "SELECT 1" {
					late = append(late, took-limit)
				}
				switch {
				case err == nil:
					ok++
				case errors.Is(err, managedpg.ErrOutcomeUnknown):
					unknown++
				case errors.Is(err, context.DeadlineExceeded):
					expired++
				case !bare: // lib/pq gives the server's error alone
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	load.Wait()
	return ok, expired, unknown, late
}

// Nor does a deadline cost a dial: who calls while the connection is made fit for its next statement waits for that. Here a dial takes long.
func TestDeadlinesCostNoDial(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			dsn := pgtest.Database(t) + "&cancel_timeout=5s&pool_size=1&max_overflow=5&base_driver=" + base
			db := rig.OpenConfig(t, dsn, func(c *managedpg.Config) {
				c.OnConnect = func(context.Context, driver.Conn) error {
					time.Sleep(500 * time.Millisecond)
					return nil
				}
			})
			rig.Warm(t, db, 1)
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
				if _, err := db.ExecContext(ctx, "SELECT pg_sleep(5)"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("it was told %v", err)
				}
				cancel()
				rig.Exec(t, db, "SELECT 1")
			}
			if s := rig.PoolOf(t, db).Stats(); s.TotalConnectionsCreated != 1 || s.Dialling != 0 || s.CancelsConfirmed < 15 {
				t.Errorf("%d sessions, %d dials under way, %d of 20 cancels confirmed", s.TotalConnectionsCreated, s.Dialling, s.CancelsConfirmed)
			}
		})
	}
}

// Through a pooler that doesn't pass cancel requests on each one is a wait in vain, so after some there are no more.
func TestCancelsThatComeToNothingAreNotGoneOnWith(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, _ *sql.DB) {
		proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr(), pgtest.DropCancels())
		db := rig.Open(t, c.DSN(proxy.DSN(pgtest.Database(t)), "cancel_timeout=30ms"))
		for range 6 {
			if err := db.Ping(); err != nil { // the deadline isn't for the dial
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			if _, err := db.ExecContext(ctx, "SELECT pg_sleep(5)"); !errors.Is(err, managedpg.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("it was told %v", err)
			}
			cancel()
		}
		pool, _ := managedpg.PoolOf(db)
		if s := pool.Stats(); s.CancelsSent != 3 || s.CancelsUnanswered != 3 {
			t.Errorf("%d cancels were sent, %d unanswered; want 3", s.CancelsSent, s.CancelsUnanswered)
		}
		if note := pool.Health().Endpoints[0].Note; !strings.Contains(note, "cancel requests come to nothing") {
			t.Errorf("Health says %q", note)
		}
	})
}

// Nor does a transaction's context then that ends: lib/pq looks into it from a goroutine of its own, and panics if it hasn't ended after all.
func TestATransactionEndsWhileNoCancelsAreSent(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, _ *sql.DB) {
		proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr(), pgtest.DropCancels())
		db := rig.Open(t, c.DSN(proxy.DSN(pgtest.Database(t)), "cancel_timeout=30ms"))
		for range 3 {
			rig.NoError(t, db.Ping())
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			if _, err := db.ExecContext(ctx, "SELECT pg_sleep(60)"); err == nil {
				t.Error("it slept")
			}
			cancel()
		}
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			tx, err := db.BeginTx(ctx, nil)
			rig.NoError(t, err)
			rig.Exec(t, tx, "SELECT 1")
			cancel()
			err = tx.Rollback()
			if err != nil && !errors.Is(err, sql.ErrTxDone) && !errors.Is(err, context.Canceled) && !errors.Is(err, managedpg.ErrTxLost) {
				t.Errorf("ROLLBACK: %v", err)
			}
		}
		rig.Exec(t, db, "SELECT 1")
	})
}

// And it ends the statement that runs in it, also if cancel requests came to nothing only after it had begun.
func TestATransactionsContextEndsItsStatementWithoutCancels(t *testing.T) {
	for _, policy := range []string{"", "pool_size=4"} {
		proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr(), pgtest.DropCancels())
		db := rig.Open(t, rig.WithKeys(proxy.DSN(pgtest.Database(t)), "base_driver=pq", "cancel_timeout=30ms", policy))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tx, err := db.BeginTx(ctx, nil)
		rig.NoError(t, err)
		for range 3 {
			rig.NoError(t, db.Ping())
			short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			if _, err := db.ExecContext(short, "SELECT pg_sleep(5)"); err == nil {
				t.Error("it slept")
			}
			cancel()
		}
		told := make(chan error, 1)
		go func() { _, err := tx.Exec("SELECT pg_sleep(60)"); told <- err }()
		rig.Eventually(t, "it runs", func() bool {
			n, err := pgtest.Shared(t).QueryString("SELECT count(*)::text FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'")
			return err == nil && n != "0"
		})
		cancel()
		select {
		case err := <-told:
			if !errors.Is(err, managedpg.ErrTxLost) {
				t.Errorf("it was told %v", err)
			}
		case <-time.After(15 * time.Second):
			t.Error("it goes on")
		}
	}
}

// A transaction's context that ends is no panic either where lib/pq is a connector of the program's own.
func TestATransactionOfAConnectorEnds(t *testing.T) {
	own, err := pq.NewConnector(pgtest.Database(t))
	rig.NoError(t, err)
	for _, size := range []int{0, 2} {
		cfg, err := managedpg.ParseDSN("host=localhost")
		rig.NoError(t, err)
		cfg.Endpoints, cfg.PoolSize = []driver.Connector{own}, size
		db, err := managedpg.OpenDB(cfg)
		rig.NoError(t, err)
		for range 50 {
			ctx, cancel := context.WithCancel(t.Context())
			tx, err := db.BeginTx(ctx, nil)
			rig.NoError(t, err)
			rig.Exec(t, tx, "SELECT 1")
			cancel()
			_ = tx.Rollback() // which of the two ends it is left to chance
		}
		rig.Exec(t, db, "SELECT 1")
		rig.NoError(t, db.Close())
	}
}

// A statement beside rows of its own transaction that their context has ended is told so, with pgx and with the bare driver, and doesn't
// wait for rows that nobody will close before it returns.
func TestAStatementBesideRowsThatHaveEnded(t *testing.T) {
	dsn := pgtest.Database(t)
	for name, db := range map[string]*sql.DB{
		"bare":            rig.OpenWith(t, "pgx", dsn),
		"by database/sql": rig.Open(t, dsn),
		"by the driver":   rig.Open(t, rig.WithKeys(dsn, "pool_size=1", "max_overflow=0")),
	} {
		t.Run(name, func(t *testing.T) {
			tx, err := db.Begin()
			rig.NoError(t, err)
			defer tx.Rollback()
			ctx, cancel := context.WithCancel(t.Context())
			rows, err := tx.QueryContext(ctx, "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")
			rig.NoError(t, err)
			if !rows.Next() {
				t.Fatal(rows.Err())
			}
			var raw sql.RawBytes // while it may be looked at database/sql doesn't close the rows
			rig.NoError(t, rows.Scan(&raw))
			cancel()
			if pool, ok := managedpg.PoolOf(db); ok {
				rig.Eventually(t, "the server is asked to stop", func() bool { return pool.Stats().CancelsSent == 1 })
			}
			told := make(chan error, 1)
			go func() { _, err := tx.Exec("SELECT 1"); told <- err }()
			select {
			case err := <-told:
				if err == nil {
					t.Error("it ran")
				}
			case <-time.After(15 * time.Second):
				t.Error("it waits")
			}
			rows.Close()
		})
	}
}

// With lib/pq a transaction's context ends the statement that runs in it, whatever that one's own context, as with the bare driver.
func TestATransactionsContextEndsItsStatement(t *testing.T) {
	dsn := pgtest.Database(t)
	for name, db := range map[string]*sql.DB{
		"bare":             rig.OpenWith(t, "postgres", dsn),
		"by database/sql":  rig.Open(t, rig.WithKeys(dsn, "base_driver=pq")),
		"by the driver":    rig.Open(t, rig.WithKeys(dsn, "base_driver=pq", "pool_size=1", "max_overflow=0")),
		"without requests": rig.Open(t, rig.WithKeys(dsn, "base_driver=pq", "cancel_timeout=0")),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			tx, err := db.BeginTx(ctx, nil)
			rig.NoError(t, err)
			pid := rig.Value[int](t, tx, "SELECT pg_backend_pid()")
			time.AfterFunc(20*time.Millisecond, cancel)
			_, err = tx.Exec("SELECT pg_sleep(5)")
			rig.WantSQLState(t, rig.Combination{Base: "pq"}, err, "57014")
			if err := tx.Commit(); !errors.Is(err, sql.ErrTxDone) && !errors.Is(err, context.Canceled) {
				t.Errorf("COMMIT: %v", err)
			}
			rig.Exec(t, db, "SELECT 1")
			if name == "by the driver" {
				if again := rig.Value[int](t, db, "SELECT pg_backend_pid()"); again != pid {
					t.Errorf("backend %d, then %d: the connection is gone", pid, again)
				}
			}
		})
	}
}
