package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	accounts = 20
	opening  = 1000 // on each account
	workers  = 10
	think    = 2 * time.Millisecond
	deadline = 8 * time.Second       // of a call
	brief    = 10 * time.Millisecond // at most, of one whose context ends at random
)

// schema has no constraint that would keep a row from being there twice: to see that is the ledger's business.
var schema = []string{
	"DROP TABLE IF EXISTS account, entry",
	"CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL)",
	fmt.Sprintf("INSERT INTO account SELECT i, %d FROM generate_series(1, %d) i", opening, accounts),
	"CREATE TABLE entry (id bigint, source int, target int, amount bigint)",
}

// entry is a call, and what its caller was told.
type entry struct {
	ID     int64         `json:"id"`
	Kind   string        `json:"kind"`            // transfer, note (a single statement), sum, or read (a sum that may be read on a standby)
	Brief  bool          `json:"brief,omitempty"` // its context ended at a random moment around its duration
	Worker int           `json:"worker"`
	Start  time.Duration `json:"start"` // since the run began
	End    time.Duration `json:"end"`
	Runs   int           `json:"runs,omitempty"` // of the transaction's function
	Told   told          `json:"told"`
	Error  string        `json:"error,omitempty"`
	Sum    int64         `json:"sum,omitempty"` // that a reader saw
	Old    bool          `json:"old,omitempty"` // it was read on a standby
}

// event is a fault.
type event struct {
	Kind  string        `json:"fault"`
	Start time.Duration `json:"start"`
	End   time.Duration `json:"end"`
	Note  string        `json:"note,omitempty"`
}

// history is all that happened.
type history struct {
	began time.Time

	mu      sync.Mutex // guards what follows
	entries []entry
	events  []event
}

func (h *history) now() time.Duration { return time.Since(h.began) }

func (h *history) add(e entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entries = append(h.entries, e)
}

func (h *history) fault(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// write writes it as JSON, a line for each call and fault, in the order of their ends.
func (h *history) write(w io.Writer) error {
	type line struct {
		end time.Duration
		v   any
	}
	var lines []line
	for _, e := range h.entries {
		lines = append(lines, line{e.End, e})
	}
	for _, e := range h.events {
		lines = append(lines, line{e.End, e})
	}
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.end - b.end) })
	out := json.NewEncoder(w)
	for _, l := range lines {
		if err := out.Encode(l.v); err != nil {
			return err
		}
	}
	return nil
}

// work is writers and readers that call until stop is closed.
type work struct {
	*history
	sys    *system
	db     *sql.DB
	seed   uint64
	lastID atomic.Int64
	stop   chan struct{}
	all    sync.WaitGroup
}

func (w *work) start() {
	calls := [workers]func(*rand.Rand, *entry){w.transfer, w.transfer, w.transfer, w.transfer, w.note, w.note, w.sum, w.sum, w.read, w.read}
	for i, call := range calls {
		random := rand.New(rand.NewPCG(w.seed, uint64(i)))
		w.all.Go(func() {
			for {
				select {
				case <-w.stop:
					return
				case <-time.After(think):
				}
				e := entry{ID: w.lastID.Add(1), Worker: i, Start: w.now()}
				call(random, &e)
				e.End = w.now()
				w.add(e)
			}
		})
	}
}

func (w *work) finish() {
	close(w.stop)
	w.all.Wait()
}

// context is a call's: one in ten ends at a random moment.
func (e *entry) context(random *rand.Rand) (context.Context, context.CancelFunc) {
	if e.Brief = random.IntN(10) == 0; e.Brief {
		return context.WithTimeout(context.Background(), time.Duration(random.Int64N(int64(brief))))
	}
	return context.WithTimeout(context.Background(), deadline)
}

func (e *entry) outcome(t told, err error) {
	e.Told = t
	if err != nil {
		e.Error = err.Error()
	}
}

// transfer moves money between two accounts, in no particular order, so that some deadlock.
func (w *work) transfer(random *rand.Rand, e *entry) {
	e.Kind = "transfer"
	ctx, cancel := e.context(random)
	defer cancel()
	source := 1 + random.IntN(accounts)
	target := 1 + (source+random.IntN(accounts-1))%accounts
	amount := 1 + random.IntN(10)
	e.outcome(w.sys.transact(ctx, w.db, false, func(ctx context.Context, tx *sql.Tx) error {
		e.Runs++
		if _, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance - $1 WHERE id = $2", amount, source); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO entry VALUES ($1, $2, $3, $4)", e.ID, source, target, amount); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance + $1 WHERE id = $2", amount, target)
		return err
	}))
}

// note is a single statement. It has no arguments, so that pgx takes the simple protocol.
func (w *work) note(random *rand.Rand, e *entry) {
	e.Kind = "note"
	ctx, cancel := e.context(random)
	defer cancel()
	e.outcome(w.sys.exec(ctx, w.db, fmt.Sprintf("INSERT INTO entry VALUES (%d, 0, 0, 0)", e.ID)))
}

const sumOfAll = "SELECT sum(balance), pg_is_in_recovery() FROM account"

// sum reads what must never change, on the primary.
func (w *work) sum(random *rand.Rand, e *entry) {
	e.Kind = "sum"
	ctx, cancel := e.context(random)
	defer cancel()
	readOnly := w.sys.marked == nil // else it may be on a standby
	e.outcome(w.sys.transact(ctx, w.db, readOnly, func(ctx context.Context, tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, sumOfAll).Scan(&e.Sum, &e.Old)
	}))
}

// read reads the same where it may be old, which it must not change either: by the context or by the transaction.
func (w *work) read(random *rand.Rand, e *entry) {
	e.Kind = "read"
	ctx, cancel := e.context(random)
	defer cancel()
	if random.IntN(2) == 0 {
		e.outcome(w.sys.transact(ctx, w.db, true, func(ctx context.Context, tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, sumOfAll).Scan(&e.Sum, &e.Old)
		}))
		return
	}
	if w.sys.marked != nil {
		ctx = w.sys.marked(ctx)
	}
	if err := w.db.QueryRowContext(ctx, sumOfAll).Scan(&e.Sum, &e.Old); err != nil {
		e.outcome(failed, err)
	} else {
		e.outcome(ok, nil)
	}
}
