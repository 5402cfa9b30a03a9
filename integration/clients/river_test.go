package clients

import (
	"context"
	"database/sql"
	"log/slog"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/rivermigrate"
)

type greeting struct {
	Name string `json:"name"`
}

func (greeting) Kind() string { return "greeting" }

type greeter struct {
	river.WorkerDefaults[greeting]
	db *sql.DB
}

func (g *greeter) Work(ctx context.Context, job *river.Job[greeting]) error {
	_, err := g.db.ExecContext(ctx, "INSERT INTO greeted VALUES ($1)", job.Args.Name)
	return err
}

// River as a poller: it listens only over a pool of pgx's own.
func TestRiver(t *testing.T) {
	eachBase(t, func(s *servers) {
		ctx := context.Background()
		db, err := sql.Open("managedpg", s.dsn)
		s.must(err)
		defer db.Close()
		migrator, err := rivermigrate.New(riverdatabasesql.New(db), nil)
		s.must(err)
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
		s.must(err)
		_, err = db.ExecContext(ctx, "CREATE TABLE greeted (name text)")
		s.must(err)

		workers := river.NewWorkers()
		river.AddWorker(workers, &greeter{db: db})
		client, err := river.NewClient(riverdatabasesql.New(db), &river.Config{
			Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2}},
			Workers:           workers,
			FetchPollInterval: 50 * time.Millisecond,
			FetchCooldown:     50 * time.Millisecond,
			Logger:            slog.New(slog.DiscardHandler),
		})
		s.must(err)
		completed, unsubscribe := client.Subscribe(river.EventKindJobCompleted)
		defer unsubscribe()
		s.must(client.Start(ctx))

		greet := func(name string, end func(*sql.Tx) error) {
			tx, err := db.BeginTx(ctx, nil)
			s.must(err)
			defer tx.Rollback()
			_, err = client.InsertTx(ctx, tx, greeting{name}, nil)
			s.must(err)
			s.must(end(tx))
		}
		wait := func() {
			select {
			case <-completed:
			case <-time.After(30 * time.Second):
				t.Fatal("no job completed")
			}
		}
		greet("Eve", (*sql.Tx).Rollback)
		greet("Ann", (*sql.Tx).Commit)
		wait()

		s.failOver()

		greet("Zoe", (*sql.Tx).Commit)
		wait()
		s.must(client.Stop(ctx))
		var names string
		s.must(db.QueryRowContext(ctx, "SELECT string_agg(name, ' ' ORDER BY name) FROM greeted").Scan(&names))
		if names != "Ann Zoe" {
			t.Errorf("greeted %s", names)
		}
		s.check()
	})
}
