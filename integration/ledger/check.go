package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// state is what the database holds in the end.
type state struct {
	rows     map[int64]int // how often each id is there
	balances map[int]int64
	moved    map[int]int64 // what the entries add up to for each account
}

// readState reads it past all proxies.
func readState(ctx context.Context, dsn string) (*state, error) {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	s := &state{rows: map[int64]int{}, balances: map[int]int64{}, moved: map[int]int64{}}
	rows, err := db.QueryContext(ctx, "SELECT id, source, target, amount FROM entry")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id, amount int64
		var source, target int
		if err := rows.Scan(&id, &source, &target, &amount); err != nil {
			return nil, err
		}
		s.rows[id]++
		s.moved[source] -= amount
		s.moved[target] += amount
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows, err = db.QueryContext(ctx, "SELECT id, balance FROM account")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int
		var balance int64
		if err := rows.Scan(&id, &balance); err != nil {
			return nil, err
		}
		s.balances[id] = balance
	}
	return s, rows.Err()
}

// count is how many calls were told what.
type count struct{ ok, failed, unknown int }

func (c *count) add(t told) {
	switch t {
	case ok:
		c.ok++
	case failed:
		c.failed++
	case unknown:
		c.unknown++
	}
}

// report is what the checker found.
type report struct {
	transfers, notes, sums, reads count
	old                           int   // sums and reads that came from a standby
	brief                         count // of them all, those whose contexts ended at random

	lost    []entry // told ok, and not there
	doubled []entry // there more than once
	untrue  []entry // told failed, and there
	moved   []string

	gap time.Duration // the longest without an ok
	// doubtful are transfers told unknown that ended during each kind of fault.
	doubtful map[string]int
	faults   map[string]int
}

// check holds what the callers were told against what is there.
func check(sys *system, h *history, s *state) *report {
	r := &report{doubtful: map[string]int{}, faults: map[string]int{}}
	const total = accounts * opening
	issued := map[int64]bool{}
	last := time.Duration(0)
	for _, e := range h.entries {
		issued[e.ID] = true
		n := s.rows[e.ID]
		if e.Brief {
			r.brief.add(e.Told)
		}
		switch e.Kind {
		case "sum", "read":
			if e.Kind == "sum" {
				r.sums.add(e.Told)
			} else {
				r.reads.add(e.Told)
			}
			if e.Told == ok && e.Old {
				r.old++
			}
			if e.Told == ok && e.Old && (sys.marked == nil || e.Kind == "sum") {
				r.moved = append(r.moved, fmt.Sprintf("a %s at %v that wasn't marked was answered by a standby", e.Kind, e.End))
			}
			if e.Told == ok && e.Sum != total {
				r.moved = append(r.moved, fmt.Sprintf("a reader saw %d at %v, not %d", e.Sum, e.End, total))
			}
			continue
		case "transfer":
			r.transfers.add(e.Told)
			if e.Told == unknown && !e.Brief { // who has no time left can't ask
				r.doubtful[h.during(e.End)]++
			}
		case "note":
			r.notes.add(e.Told)
		}
		switch {
		case n > 1:
			r.doubled = append(r.doubled, e)
		case e.Told == ok && n == 0:
			r.lost = append(r.lost, e)
		case e.Told == failed && n > 0:
			r.untrue = append(r.untrue, e)
		}
		if e.Told == ok {
			r.gap = max(r.gap, e.End-last)
			last = max(last, e.End)
		}
	}
	sum := int64(0)
	for id := 1; id <= accounts; id++ {
		sum += s.balances[id]
		if want := opening + s.moved[id]; s.balances[id] != want {
			r.moved = append(r.moved, fmt.Sprintf("account %d has %d, its entries make %d", id, s.balances[id], want))
		}
	}
	if sum != total {
		r.moved = append(r.moved, fmt.Sprintf("the accounts have %d, not %d", sum, total))
	}
	for id := range s.rows {
		if !issued[id] {
			r.moved = append(r.moved, fmt.Sprintf("nobody wrote entry %d", id))
		}
	}
	for _, e := range h.events {
		r.faults[e.Kind]++
	}
	return r
}

// during names the fault under which a call ended: the last one that had begun.
func (h *history) during(at time.Duration) string {
	kind := ""
	for _, e := range h.events {
		if e.Start <= at {
			kind = e.Kind
		}
	}
	return kind
}

// wrong says what of the ledger's promises was broken, nothing if they were kept.
func (r *report) wrong(sys *system) []string {
	var all []string
	for what, entries := range map[string][]entry{"lost": r.lost, "doubled": r.doubled, "told failed, and there": r.untrue} {
		for _, e := range entries {
			all = append(all, fmt.Sprintf("%s: %s %d by worker %d, %v to %v, told %s (%s)", what, e.Kind, e.ID, e.Worker, e.Start, e.End, e.Told, e.Error))
		}
	}
	all = append(all, r.moved...)
	if sys.resolves {
		for _, f := range faults {
			if n := r.doubtful[f.kind]; f.resolvable && n > 0 {
				all = append(all, fmt.Sprintf("%d commits in doubt were not resolved after %q", n, f.kind))
			}
		}
	}
	if sys.marked != nil && r.old == 0 {
		all = append(all, "nothing was read on a standby")
	}
	if r.transfers.ok == 0 {
		all = append(all, "no transfer succeeded")
	}
	return all
}
