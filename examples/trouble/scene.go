package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// scene is a program with a pool, its log, and those who work in it.
type scene struct {
	hold bool
	work sync.WaitGroup

	mu     sync.Mutex
	out    io.Writer
	failed map[string]int // how often a call has failed in this way
}

// play makes one symptom, and ends all that worked on it.
func play(ctx context.Context, out io.Writer, hold bool, symptom func(context.Context, *scene) error) error {
	s := &scene{out: out, hold: hold, failed: map[string]int{}}
	return symptom(ctx, s)
}

// server starts a PostgreSQL.
func server(opts ...pgtest.Option) (*pgtest.Cluster, error) { return pgtest.New(opts...) }

// open is sql.Open with a log of the scene's.
func (s *scene) open(dsn string) (*sql.DB, *managedpg.Pool, error) {
	cfg, err := managedpg.ParseDSN(dsn)
	if err != nil {
		return nil, nil, err
	}
	cfg.Logger = slog.New(logLines{s})
	db, err := managedpg.OpenDB(cfg)
	if err != nil {
		return nil, nil, err
	}
	pool, _ := managedpg.PoolOf(db)
	return db, pool, nil
}

// workers run what a program does again and again, until the scene is over.
func (s *scene) workers(ctx context.Context, n int, do func(context.Context) error) {
	for range n {
		s.work.Go(func() {
			for ctx.Err() == nil {
				if err := do(ctx); err != nil && ctx.Err() == nil {
					s.fail(err)
					pause(ctx, 50*time.Millisecond)
				}
			}
		})
	}
}

// fail is the program's own log: the first error of each kind, and how many there were.
func (s *scene) fail(err error) {
	kind := err.Error()
	for _, known := range []error{managedpg.ErrPoolTimeout, managedpg.ErrOutcomeUnknown, managedpg.ErrTxLost, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			kind = known.Error()
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed[kind]++; s.failed[kind] == 1 {
		fmt.Fprintf(s.out, "  a call    %v\n", err)
	}
}

func (s *scene) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format+"\n", args...)
}

// failures is how many calls have failed.
func (s *scene) failures() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range s.failed {
		n += of
	}
	return n
}

// until waits for a symptom to show.
func (s *scene) until(ctx context.Context, what string, shows func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !shows() {
		if pause(ctx, 20*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("waited in vain until %s", what)
		}
	}
	return nil
}

// end leaves the symptom to be looked at, and then closes the log: what is said while all is put away is of no interest.
func (s *scene) end(ctx context.Context) {
	if s.hold {
		s.say("\nIt goes on until Ctrl-C.")
		<-ctx.Done()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = io.Discard
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// logLines is a slog.Handler that writes a line for each record, without its stack.
type logLines struct{ s *scene }

func (logLines) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (l logLines) WithAttrs([]slog.Attr) slog.Handler         { return l }
func (l logLines) WithGroup(string) slog.Handler              { return l }

func (l logLines) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "  log       %s %s", r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		switch v := a.Value.Any().(type) {
		case []string, time.Time: // the stack, and when it was taken
		case time.Duration:
			fmt.Fprintf(&b, " %s=%v", a.Key, v.Round(time.Millisecond))
		default:
			fmt.Fprintf(&b, " %s=%q", a.Key, fmt.Sprint(v))
		}
		return true
	})
	l.s.say("%s", b.String())
	return nil
}
