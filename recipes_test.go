package managedpg_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jackc/pgx/v5/tracelog"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats/web"
)

// Every block of Go in docs/recipes.md stands in this file, line by line, and so is run; but for otelsql's, which the module
// integration runs.
func TestRecipesAreRun(t *testing.T) {
	unindented := func(text string) string {
		var b strings.Builder
		for line := range strings.Lines(text) {
			b.WriteString(strings.TrimLeft(line, "\t"))
		}
		return b.String()
	}
	here := unindented(read(t, "recipes_test.go"))
	blocks := 0
	for _, m := range fence.FindAllStringSubmatch(read(t, "docs/recipes.md"), -1) {
		if m[1] != "go" || strings.Contains(m[2], "otelsql.") {
			continue
		}
		if blocks++; !strings.Contains(here, unindented(m[2])) {
			t.Errorf("no test runs\n%s", m[2])
		}
	}
	if blocks < 9 {
		t.Errorf("only %d blocks found", blocks)
	}
}

// authority makes a certificate for localhost, signed by an authority of its own, and returns the three as PEM.
func authority(t *testing.T) (ca, cert, key string) {
	t.Helper()
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rig.NoError(t, err)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	caDER, err := x509.CreateCertificate(rand.Reader, root, root, &caKey.PublicKey, caKey)
	rig.NoError(t, err)
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rig.NoError(t, err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: root.NotBefore, NotAfter: root.NotAfter}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &own.PublicKey, caKey)
	rig.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(own)
	rig.NoError(t, err)
	return encode("CERTIFICATE", caDER), encode("CERTIFICATE", leafDER), encode("PRIVATE KEY", keyDER)
}

// The DSN of the recipe for TLS, with both bases: a certificate of the authority named is taken, for the name that it is for.
func TestRecipeTLS(t *testing.T) {
	pg := pgtest.Start(t, pgtest.HBA("hostssl all all all trust"))
	ca, cert, key := authority(t)
	data, err := pg.QueryString("SHOW data_directory")
	rig.NoError(t, err)
	for name, text := range map[string]string{"tls.crt": cert, "tls.key": key} { // written by the server, whose files they must be
		rig.NoError(t, pg.Exec(fmt.Sprintf("COPY (SELECT unnest(string_to_array('%s', E'\\n'))) TO PROGRAM 'umask 077; cat >%s/%s'", strings.TrimSpace(text), data, name)))
	}
	rig.NoError(t, pg.Exec("ALTER SYSTEM SET ssl_cert_file = 'tls.crt'", "ALTER SYSTEM SET ssl_key_file = 'tls.key'", "ALTER SYSTEM SET ssl = on",
		"SELECT pg_reload_conf()"))
	ours, other := filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "other.pem")
	another, _, _ := authority(t)
	rig.NoError(t, errors.Join(os.WriteFile(ours, []byte(ca), 0o600), os.WriteFile(other, []byte(another), 0o600)))

	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			dsn := func(host, ca string) string {
				return fmt.Sprintf("postgres://postgres@%s:%d/postgres?sslmode=verify-full&sslrootcert=%s&pool_size=2&base_driver=%s", host, pg.Port(), ca, base)
			}
			db := rig.Open(t, dsn("localhost", ours))
			rig.Eventually(t, "the server speaks TLS", func() bool { return db.PingContext(t.Context()) == nil })
			if !rig.Value[bool](t, db, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") {
				t.Error("the session is not encrypted")
			}
			for what, dsn := range map[string]string{"another authority": dsn("localhost", other), "another name": dsn("127.0.0.1", ours)} {
				db := rig.OpenQuietly(t, dsn)
				if err := db.PingContext(t.Context()); err == nil || !strings.Contains(err.Error(), "x509") {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// Passwords that change, as the recipe has it for pgx and for lib/pq.
func TestRecipePasswords(t *testing.T) {
	pg := pgtest.Start(t, pgtest.HBA("host all all all scram-sha-256"))
	rotate := func(password string) { rig.NoError(t, pg.Exec("ALTER ROLE app PASSWORD '"+password+"'")) }
	rig.NoError(t, pg.Exec("CREATE ROLE app LOGIN"))
	passwordFile := filepath.Join(t.TempDir(), "password")
	for base, open := range map[string]func() (*sql.DB, error){
		"pgx": func() (*sql.DB, error) {
			dsn := fmt.Sprintf("postgres://app@127.0.0.1:%d/postgres?sslmode=disable&pool_size=2", pg.Port())
			var opened *sql.DB
			err := func() error {
				cfg, err := managedpg.ParseDSN(dsn)
				if err != nil {
					return err
				}
				cfg.PgxOptions = append(cfg.PgxOptions, stdlib.OptionBeforeConnect(func(ctx context.Context, c *pgx.ConnConfig) error {
					password, err := os.ReadFile(passwordFile) // or a token from the cloud's library, within ctx
					c.Password = strings.TrimSpace(string(password))
					return err
				}))
				db, err := managedpg.OpenDB(cfg)
				opened = db
				return err
			}()
			return opened, err
		},
		"pq": func() (*sql.DB, error) {
			return sql.Open("managedpg", fmt.Sprintf("postgres://app@127.0.0.1:%d/postgres?sslmode=disable&pool_size=2&base_driver=pq&passfile=%s",
				pg.Port(), passwordFile))
		},
	} {
		t.Run(base, func(t *testing.T) {
			set := func(password string) {
				rotate(password)
				text := password + "\n"
				if base == "pq" {
					text = fmt.Sprintf("127.0.0.1:%d:postgres:app:%s\n", pg.Port(), password)
				}
				rig.NoError(t, os.WriteFile(passwordFile, []byte(text), 0o600))
			}
			set("one")
			db, err := open()
			rig.NoError(t, err)
			defer db.Close()
			pool := rig.PoolOf(t, db)
			first := rig.Value[int](t, db, "SELECT pg_backend_pid()")
			set("two")
			if again := rig.Value[int](t, db, "SELECT pg_backend_pid()"); again != first {
				t.Error("the session that there was is gone")
			}
			pool.Drain() // free connections are closed now, those in use as they are given back
			if again := rig.Value[int](t, db, "SELECT pg_backend_pid()"); again == first {
				t.Error("the session with the old password is still used")
			}
		})
	}
}

func TestRecipeStart(t *testing.T) {
	log := captureLog(t)
	pg := pgtest.Start(t)
	rig.NoError(t, pg.Stop())
	db := rig.OpenQuietly(t, pg.DSN())
	ctx := t.Context()
	started := make(chan error, 1)
	go func() {
		started <- func() error {
			gate, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			for {
				err := db.PingContext(gate)
				if err == nil {
					break
				}
				if gate.Err() != nil {
					return fmt.Errorf("no database within a minute: %w", err)
				}
				slog.Warn("waiting for the database", "error", err)
				select {
				case <-gate.Done():
				case <-time.After(time.Second):
				}
			}
			return nil
		}()
	}()
	rig.Eventually(t, "it waits", func() bool { return strings.Contains(log(), "waiting for the database") })
	select {
	case err := <-started:
		t.Fatalf("it didn't wait: %v", err)
	default:
	}
	rig.NoError(t, pg.Restart())
	rig.NoError(t, <-started)
}

func TestRecipeShutdown(t *testing.T) {
	db := rig.Open(t, pgtest.Database(t)+"&pool_size=4")
	pool := rig.PoolOf(t, db)
	rig.Exec(t, db, "CREATE TABLE done (i int)")
	began := make(chan bool)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	rig.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := managedpg.InTx(r.Context(), db, nil, func(ctx context.Context, tx *sql.Tx) error {
			close(began)
			_, err := tx.ExecContext(ctx, "INSERT INTO done SELECT 1 FROM pg_sleep(0.2)")
			return err
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})}
	go server.Serve(listener)
	var answered sync.WaitGroup
	answered.Go(func() {
		answer, err := http.Get("http://" + listener.Addr().String())
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Errorf("the request in progress: %v %v", answer, err)
		}
		if err == nil {
			answer.Body.Close()
		}
	})
	<-began
	err = func() error {
		last, cancel := context.WithTimeout(context.Background(), 20*time.Second) // less than Kubernetes' terminationGracePeriodSeconds
		defer cancel()
		err := server.Shutdown(last)
		if err := pool.Pause(last); err != nil { // background jobs, too, have ended their transactions
			slog.Error("closing the pool under somebody", "error", err)
		}
		return errors.Join(err, db.Close())
	}()
	rig.NoError(t, err)
	answered.Wait()
	http.DefaultClient.CloseIdleConnections()
	if n := pool.Stats().Open; n != 0 {
		t.Errorf("%d connections are open", n)
	}
}

func TestRecipeHealth(t *testing.T) {
	rig.Open(t, pgtest.Database(t)+"&pool_size=2") // nobody has used it yet
	mux := http.NewServeMux()
	mux.Handle("/readyz", web.Healthz())                                  // may requests come here?
	mux.HandleFunc("/livez", func(http.ResponseWriter, *http.Request) {}) // does the program answer at all?
	for _, path := range []string{"/readyz", "/livez"} {
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, httptest.NewRequest("GET", path, nil))
		if answer.Code != http.StatusOK {
			t.Errorf("%s: %d %s", path, answer.Code, answer.Body)
		}
	}
}

func TestRecipeTracer(t *testing.T) {
	log := captureLog(t)
	dsn := pgtest.Database(t)
	err := func() error {
		cfg, err := managedpg.ParseDSN(dsn)
		if err != nil {
			return err
		}
		cfg.PgxConfig = func(c *pgx.ConnConfig) error {
			c.Tracer = &tracelog.TraceLog{LogLevel: tracelog.LogLevelInfo, Logger: tracelog.LoggerFunc(
				func(ctx context.Context, level tracelog.LogLevel, msg string, data map[string]any) {
					slog.InfoContext(ctx, msg, "sql", data["sql"], "time", data["time"]) // managedpg itself never logs a statement's text
				})}
			return nil
		}
		db, err := managedpg.OpenDB(cfg)
		if err != nil {
			return err
		}
		defer db.Close()
		_, err = db.Exec("SELECT 4711")
		return err
	}()
	rig.NoError(t, err)
	if !strings.Contains(log(), "SELECT 4711") {
		t.Errorf("no trace: %s", log())
	}
}

// captureLog has slog's default logger write where the test can read it.
func captureLog(t *testing.T) (text func() string) {
	var mu sync.Mutex
	var all bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return all.Write(p)
	}), nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestRecipeCopy(t *testing.T) {
	ctx := t.Context()
	for base, copyFruit := range map[string]func(db *sql.DB) error{
		"pgx": func(db *sql.DB) error {
			rows := [][]any{{1, "apple"}, {2, "pear"}}
			err := managedpg.PgxConn(ctx, db, func(c *pgx.Conn) error {
				_, err := c.CopyFrom(ctx, pgx.Identifier{"fruit"}, []string{"id", "name"}, pgx.CopyFromRows(rows))
				return err
			})
			return err
		},
		"pq": func(db *sql.DB) error {
			err := managedpg.InTx(ctx, db, nil, func(ctx context.Context, tx *sql.Tx) error {
				fruit, err := tx.PrepareContext(ctx, "COPY fruit (id, name) FROM STDIN")
				if err != nil {
					return err
				}
				defer fruit.Close()
				for id, name := range []string{"apple", "pear"} {
					if _, err := fruit.ExecContext(ctx, id+1, name); err != nil {
						return err
					}
				}
				_, err = fruit.ExecContext(ctx) // sends the rest
				return err
			})
			return err
		},
	} {
		for _, keys := range []string{"", "&pool_size=2"} {
			t.Run(base+keys, func(t *testing.T) {
				db := rig.Open(t, pgtest.Database(t)+"&base_driver="+base+keys)
				rig.Exec(t, db, "CREATE TABLE fruit (id int, name text)")
				rig.NoError(t, copyFruit(db))
				if all := rig.Value[string](t, db, "SELECT string_agg(id || ' ' || name, ', ' ORDER BY id) FROM fruit"); all != "1 apple, 2 pear" {
					t.Errorf("copied: %s", all)
				}
			})
		}
	}
}

func TestRecipeListen(t *testing.T) {
	captureLog(t)
	for _, keys := range []string{"", "&pool_size=2"} {
		t.Run("listen"+keys, func(t *testing.T) {
			db := rig.Open(t, pgtest.Database(t)+keys)
			ctx, stop := context.WithCancel(t.Context())
			var mu sync.Mutex
			var heard []string
			handle := func(payload string) {
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, payload)
			}
			has := func(payload string) func() bool {
				return func() bool {
					mu.Lock()
					defer mu.Unlock()
					return slices.Contains(heard, payload)
				}
			}
			var listening sync.WaitGroup
			listening.Go(func() {
				for ctx.Err() == nil {
					err := managedpg.PgxConn(managedpg.LongCheckout(ctx), db, func(c *pgx.Conn) error {
						if _, err := c.Exec(ctx, "LISTEN orders"); err != nil {
							return err
						}
						defer c.Exec(context.Background(), "UNLISTEN *") // the connection goes back to the pool
						handle("")                                       // what was sent while nobody listened is lost: look at the table
						for {
							n, err := c.WaitForNotification(ctx)
							if err != nil {
								return err
							}
							handle(n.Payload)
						}
					})
					slog.Warn("listening again", "error", err)
					select {
					case <-ctx.Done():
					case <-time.After(time.Second):
					}
				}
			})
			rig.Eventually(t, "somebody listens", has(""))
			rig.Exec(t, db, "NOTIFY orders, 'one'")
			rig.Eventually(t, "one is heard", has("one"))
			// The listener's session is ended, and it begins another one.
			rig.Exec(t, db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
			rig.Eventually(t, "two is heard", func() bool {
				rig.Exec(t, db, "NOTIFY orders, 'two'")
				return has("two")()
			})
			stop()
			listening.Wait()
			rig.Eventually(t, "nobody listens", func() bool {
				return rig.Value[int](t, db, "SELECT count(*) FROM pg_listening_channels()") == 0 && rig.PoolOf(t, db).Stats().CheckedOut == 0
			})
		})
	}
}
