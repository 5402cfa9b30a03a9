package sim

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
)

const (
	accounts = 5
	resolves = time.Second // how long it is asked for once more what became of a transaction
)

// call is one of the load's, and what its caller was told.
type call struct {
	row           int64
	kind          string
	began, ended  time.Time
	limit         time.Duration // its context's
	brief         bool
	from, to, sum int64 // of a transfer
	told          told
	err           error
}

// told is what a caller knows.
type told int

const (
	toldNothing told = iota
	toldOK
	toldNot
	toldUnknown
)

func (t told) String() string { return [...]string{"nothing", "ok", "not done", "unknown"}[t] }

// work has clients call until some time after the last fault.
func (w *world) work() {
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range w.plan.clients {
		clients.Go(func() { w.client(rand.New(rand.NewPCG(w.plan.seed, 100+uint64(i))), stop) })
	}
	w.play()
	w.mu.Lock()
	w.mended = time.Now()
	w.mu.Unlock()
	time.Sleep(settles)
	if pool, ok := managedpg.PoolOf(w.db); ok {
		for _, e := range pool.Health().Endpoints {
			w.log("%s is %s, %s, on timeline %d; last probe at %v, error %v", e.Endpoint, e.State, e.Role, e.Timeline, e.LastCheck.Sub(w.began), e.LastError)
		}
	}
	time.Sleep(goodFor)
	close(stop)
	clients.Wait()
	w.checkMoves()
}

// checkMoves: a fault makes the pool leave a server and come back, perhaps by way of the others. Nothing else does, so it doesn't go to and
// fro meanwhile.
func (w *world) checkMoves() {
	pool, ok := managedpg.PoolOf(w.db)
	if !ok {
		return
	}
	f := pool.Failover()
	if moves := f.FailoverCount + f.FailbackCount; moves > int64(w.plan.servers+2*len(w.plan.faults)) {
		w.fail("%d failovers and %d failbacks for %d faults", f.FailoverCount, f.FailbackCount, len(w.plan.faults))
	}
}

func (w *world) client(r *rand.Rand, stop <-chan struct{}) {
	var insert *sql.Stmt
	for insert == nil && !w.plan.reads {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
		insert, _ = w.db.Prepare("INSERT INTO entry VALUES ($1)")
	}
	if insert != nil {
		defer insert.Close()
	}
	pace := []float64{2, 20, 100}[r.IntN(3)] * float64(time.Millisecond)
	for {
		pause := time.NewTimer(time.Duration(r.ExpFloat64() * pace))
		select {
		case <-stop:
			pause.Stop()
			return
		case <-pause.C:
		}
		w.call(r, insert)
	}
}

func (w *world) call(r *rand.Rand, insert *sql.Stmt) {
	w.mu.Lock()
	w.lastRow++
	c := &call{row: w.lastRow, began: time.Now(), limit: 5 * time.Second}
	w.calls[c.row] = c
	w.mu.Unlock()
	if w.plan.brief > 0 && r.IntN(w.plan.brief) == 0 {
		c.brief, c.limit = true, time.Duration(r.Int64N(int64(20*time.Millisecond)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.limit)
	if c.brief && r.IntN(2) == 0 {
		ctx, cancel = context.WithCancel(context.Background())
		time.AfterFunc(c.limit, cancel)
	}
	defer cancel()
	var err error
	what := r.IntN(9)
	switch {
	case w.plan.reads:
		what = 6
	case w.plan.commits:
		what = 0
	case what == 8 && (w.plan.pq || w.plan.gentle || w.plan.orders): // lib/pq loses its connection by that, and so does pgx at times
		what = 7
	}
	switch what {
	case 0, 1:
		err = w.transfer(ctx, r, c)
	case 2:
		c.kind = "single"
		_, err = w.db.ExecContext(ctx, fmt.Sprintf("INSERT INTO entry VALUES (%d)", c.row))
	case 3:
		c.kind = "single with an argument"
		_, err = w.db.ExecContext(ctx, "INSERT INTO entry VALUES ($1)", c.row)
	case 4:
		c.kind = "prepared"
		_, err = insert.ExecContext(ctx, c.row)
	case 5:
		c.kind = "transaction"
		err = w.transaction(ctx, c)
	case 6:
		c.kind = "read"
		var n int
		if w.plan.standby {
			ctx = managedpg.ReadOnly(ctx)
		}
		err = w.db.QueryRowContext(ctx, "SELECT count(*) FROM entry WHERE id = $1", c.row).Scan(&n)
	case 7:
		c.kind = "conn"
		err = w.conn(ctx, c)
	default:
		c.kind = "busy"
		err = w.busy(ctx, c)
	}
	w.mu.Lock()
	c.ended, c.err = time.Now(), err
	switch {
	case err == nil:
		c.told = toldOK
	case errors.Is(err, managedpg.ErrOutcomeUnknown):
		c.told = toldUnknown
	default:
		c.told = toldNot
	}
	w.mu.Unlock()
	w.log("call %d, %s: %v after %v: %v", c.row, c.kind, c.told, c.ended.Sub(c.began), err)
}

// transfer moves money in a function.
func (w *world) transfer(ctx context.Context, r *rand.Rand, c *call) error {
	c.kind = "transfer"
	c.from, c.to, c.sum = r.Int64N(accounts), r.Int64N(accounts), 1+r.Int64N(10)
	opts := &managedpg.TxOptions{Retries: r.IntN(3), ResolveCommit: r.IntN(2) == 0 || w.plan.commits}
	if opts.ResolveCommit {
		c.kind = "transfer that asks"
	}
	err := managedpg.InTx(ctx, w.db, opts, func(ctx context.Context, tx *sql.Tx) error {
		const update = "UPDATE account SET balance = balance + $1 WHERE id = $2"
		if _, err := tx.ExecContext(ctx, update, -c.sum, c.from); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO entry VALUES ($1)", c.row); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, update, c.sum, c.to)
		return err
	})
	if opts.ResolveCommit && errors.Is(err, managedpg.ErrOutcomeUnknown) {
		return w.resolve(c, err)
	}
	return err
}

// resolve asks once more what became of a transaction: first in a hurry, which may not be enough.
func (w *world) resolve(c *call, err error) error {
	var lost *conn.LostError
	if !errors.As(err, &lost) {
		return err
	}
	for _, limit := range []time.Duration{time.Duration(c.row%20) * time.Millisecond, resolves} {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		outcome, why := lost.Resolve(ctx)
		w.log("call %d is asked for: %v, %v", c.row, outcome, why)
		switch outcome {
		case conn.Committed:
			return nil
		case conn.Aborted:
			return fmt.Errorf("rolled back: %v", err)
		}
	}
	return err
}

// transaction is one without InTx.
func (w *world) transaction(ctx context.Context, c *call) error {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO entry VALUES ($1)", c.row); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// busy is a transaction that runs a statement while the rows of another are open. pgx refuses that, and in some cases is of no use for
// the rest of the transaction, which has to be told as what it is.
func (w *world) busy(ctx context.Context, c *call) error {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	rows, err := tx.QueryContext(ctx, "SELECT count(*) FROM entry WHERE id = $1", c.row)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO entry VALUES ($1)", c.row)
	if _, cause, _ := strings.Cut(fmt.Sprint(err), "): "); errors.Is(err, managedpg.ErrTxLost) && strings.HasSuffix(cause, "bad connection") {
		w.fail("call %d: %v, and only rows were open", c.row, err)
	}
	_ = rows.Close()
	if err == nil {
		err = tx.Commit()
	}
	return err
}

// conn writes on a connection that is kept for two statements.
func (w *world) conn(ctx context.Context, c *call) error {
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var n int
	if err := conn.QueryRowContext(ctx, "SELECT count(*) FROM entry WHERE id = $1", c.row).Scan(&n); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "INSERT INTO entry VALUES ($1)", c.row)
	return err
}
