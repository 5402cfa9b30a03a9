package main

import (
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// scenario is what is done to a pool.
type scenario struct {
	name, about string
	columns     []string
	cold        bool          // no connection is open at first
	capacity    time.Duration // is measured with calls of this length; 0: isn't
	run         func(w *world, db *sql.DB, capacity float64) (figures, error)
	verdict     func(f figures, all map[string]figures) []string // what a pool that managedpg governs misses
}

const service = 10 * time.Millisecond

var scenarios = slices.Concat([]*scenario{overload(1.2), overload(1.5), overload(2), overload(4)},
	[]*scenario{brownout, slowOpening, refusing, coldStart, burst, mixed, below})

func overload(factor float64) *scenario {
	const lasts = 2500 * time.Millisecond
	return &scenario{
		name:     fmt.Sprintf("%g times the capacity", factor),
		about:    "Calls of 10 ms with a deadline of 500 ms. Share: of the capacity, calls that succeed while the load lasts. p50, p99: ms that all that succeed take.",
		columns:  []string{"share", "p50", "p99", "sessions"},
		capacity: service,
		run: func(_ *world, db *sql.DB, capacity float64) (figures, error) {
			var l load
			end := time.Now().Add(lasts)
			l.offered(factor*capacity, lasts, sleep(db, service, 500*time.Millisecond))
			ok := l.served()
			late := slices.IndexFunc(append(ok, call{end: time.Now()}), func(c call) bool { return c.end.After(end) }) // how many wait then is a matter of the order
			return figures{"share": float64(late) / (capacity * lasts.Seconds()), "p50": took(ok, 0.5), "p99": took(ok, 0.99)}, nil
		},
		verdict: func(f figures, all map[string]figures) []string {
			var l limits
			l.want(f["share"] >= 0.95, "share %.2f, want 0.95", f["share"])
			bare := all[barePgx]
			l.want(f["share"] >= bare["share"]-0.05-math.Hypot(f[noise("share")], bare[noise("share")]), "share %.2f, bare pgx has %.2f", f["share"], bare["share"])
			l.want(factor < 2 || f["p50"] <= 100, "p50 %.0f ms, want 100", f["p50"])
			l.want(f["sessions"] <= 2*connections, "%.0f sessions, want %d", f["sessions"], 2*connections)
			return l
		},
	}
}

var brownout = &scenario{
	name: "brownout",
	about: "0.7 times the capacity with a deadline of 200 ms; the server stands still for 2 s. Recovery: seconds after the thaw from which on 95 % " +
		"of the calls that begin succeed; 3: not within that time.",
	columns:  []string{"recovery", "sessions"},
	capacity: service,
	run: func(w *world, db *sql.DB, capacity float64) (figures, error) {
		if err := w.server.Freeze(); err != nil {
			return nil, err
		}
		var thawed time.Time
		thaw := make(chan error, 1)
		time.AfterFunc(2*time.Second, func() {
			thawed = time.Now()
			thaw <- w.server.Thaw()
		})
		var l load
		l.offered(0.7*capacity, 5*time.Second, sleep(db, service, 200*time.Millisecond))
		if err := <-thaw; err != nil {
			return nil, err
		}
		return figures{"recovery": recovery(l.calls, thawed).Seconds()}, nil
	},
	verdict: func(f figures, all map[string]figures) []string {
		var l limits
		l.want(f["recovery"] <= 0.2, "back after %.2f s, want 0.2", f["recovery"])
		l.want(f["sessions"] <= 4*connections, "%.0f sessions, want %d", f["sessions"], 4*connections)
		return l
	},
}

// recovery is after how long 95 % of the calls that begin succeed, from then on.
func recovery(calls []call, since time.Time) time.Duration {
	const step = 50 * time.Millisecond
	var began, ok [60]float64
	for _, c := range calls {
		if i := int(c.began.Sub(since) / step); !c.began.Before(since) && i < len(began) {
			began[i]++
			if c.ok {
				ok[i]++
			}
		}
	}
	at := len(began)
	for allBegan, allOK := 0.0, 0.0; at > 0; at-- {
		allBegan, allOK = allBegan+began[at-1], allOK+ok[at-1]
		if ok[at-1] < 0.8*began[at-1] || allOK < 0.95*allBegan {
			break
		}
	}
	return time.Duration(at) * step
}

var slowOpening = &scenario{
	name:    "slow opening",
	about:   "A connection takes 150 ms to open, 8 goroutines make calls that may take 100 ms, for 2 s, with none open at first. Answered: calls that succeed, in thousands.",
	columns: []string{"answered", "sessions"},
	cold:    true,
	run: func(w *world, db *sql.DB, _ float64) (figures, error) {
		w.relay.Set(pgtest.RelayMode{Delay: 150 * time.Millisecond})
		var l load
		l.closed(connections, 2*time.Second, sleep(db, time.Millisecond, 100*time.Millisecond))
		return figures{"answered": float64(len(l.served())) / 1000}, nil
	},
	verdict: func(f figures, all map[string]figures) []string {
		var l limits
		l.want(f["answered"] >= 0.9*all[pgxPool]["answered"], "%.2f answered, pgxpool has %.2f", f["answered"], all[pgxPool]["answered"])
		l.want(f["sessions"] <= connections, "%.0f sessions, want %d", f["sessions"], connections)
		return l
	},
}

var refusing = &scenario{
	name: "a server that refuses",
	about: "It hangs up in the startup for 2 s, while 64 goroutines ask for it with deadlines of 100 ms. Asked: connections a second. Return: ms from its return to " +
		"the first success.",
	columns: []string{"asked", "return"},
	cold:    true,
	run: func(w *world, db *sql.DB, _ float64) (figures, error) {
		w.relay.Set(pgtest.RelayMode{HangUp: true})
		asked := w.relay.Asked()
		const refuses = 2 * time.Second
		var l load
		back := make(chan time.Time, 1)
		var atReturn int64
		time.AfterFunc(refuses, func() {
			atReturn = w.relay.Asked()
			w.relay.Set(pgtest.RelayMode{})
			back <- time.Now()
		})
		l.closed(64, refuses+time.Second, func() error {
			err := sleep(db, time.Millisecond, 100*time.Millisecond)()
			if err != nil {
				time.Sleep(rand.N(2 * time.Millisecond)) // so that the program is left some time
			}
			return err
		})
		first, since := time.Hour, <-back
		for _, c := range l.served() {
			first = min(first, c.end.Sub(since))
		}
		return figures{"asked": float64(atReturn-asked) / refuses.Seconds(), "return": float64(first) / float64(time.Millisecond)}, nil
	},
	verdict: func(f figures, _ map[string]figures) []string {
		var l limits
		l.want(f["asked"] <= 50, "asked %.0f times a second, want 50", f["asked"])
		l.want(f["return"] <= 50, "first success after %.0f ms, want 50", f["return"])
		return l
	},
}

var coldStart = &scenario{
	name:    "a cold start",
	about:   "1,000 goroutines make a call of 1 ms each, without a deadline, and no connection is open. Done: ms until all have succeeded.",
	columns: []string{"failed", "done", "sessions"},
	cold:    true,
	run: func(_ *world, db *sql.DB, _ float64) (figures, error) {
		var l load
		began := time.Now()
		l.burst(1000, sleep(db, time.Millisecond, 0))
		return figures{"failed": float64(1000 - len(l.served())), "done": float64(time.Since(began)) / float64(time.Millisecond)}, nil
	},
	verdict: func(f figures, _ map[string]figures) []string {
		var l limits
		l.want(f["failed"] == 0, "%.0f failed", f["failed"])
		l.want(f["sessions"] <= connections, "%.0f sessions, want %d", f["sessions"], connections)
		return l
	},
}

var burst = &scenario{
	name:    "a burst",
	about:   "1,000 calls of 10 ms, five begun each ms, without deadlines. Out of order: by how many places the call was early or late that was most.",
	columns: []string{"failed", "p99", "out of order"},
	run: func(_ *world, db *sql.DB, _ float64) (figures, error) {
		var l load
		l.offered(5000, 200*time.Millisecond, sleep(db, service, 0)) // goroutines that are made at once begin in any order
		ok, worst := l.served(), 0
		for i, c := range ok {
			worst = max(worst, i-c.n, c.n-i)
		}
		return figures{"failed": float64(len(l.calls) - len(ok)), "p99": took(ok, 0.99), "out of order": float64(worst)}, nil
	},
	verdict: func(f figures, all map[string]figures) []string {
		var l limits
		l.want(f["failed"] == 0, "%.0f failed", f["failed"])
		l.want(f["out of order"] < all[barePgx]["out of order"], "out of order by %.0f, bare pgx by %.0f", f["out of order"], all[barePgx]["out of order"])
		return l
	},
}

var mixed = &scenario{
	name:     "short and long calls",
	about:    "0.9 times the capacity, a tenth of it calls of 55 ms beside those of 5 ms, with deadlines of 1 s. p50, p99: ms of those that succeed.",
	columns:  []string{"failed", "p50", "p99", "sessions"},
	capacity: service,
	run: func(_ *world, db *sql.DB, capacity float64) (figures, error) {
		short, long := sleep(db, 5*time.Millisecond, time.Second), sleep(db, 55*time.Millisecond, time.Second)
		var l load
		l.offered(0.9*capacity, 2*time.Second, func() error {
			if rand.IntN(10) == 0 {
				return long()
			}
			return short()
		})
		ok := l.served()
		return figures{"failed": float64(len(l.calls) - len(ok)), "p50": took(ok, 0.5), "p99": took(ok, 0.99)}, nil
	},
}

var below = &scenario{
	name:     "below the capacity",
	about:    "0.7 times the capacity with deadlines of 1 s. p50, p99: ms.",
	columns:  []string{"failed", "p50", "p99", "sessions"},
	capacity: service,
	run: func(_ *world, db *sql.DB, capacity float64) (figures, error) {
		var l load
		l.offered(0.7*capacity, 2*time.Second, sleep(db, service, time.Second))
		ok := l.served()
		return figures{"failed": float64(len(l.calls) - len(ok)), "p50": took(ok, 0.5), "p99": took(ok, 0.99)}, nil
	},
	verdict: func(f figures, all map[string]figures) []string {
		var l limits
		for _, peer := range []string{barePgx, pgxPool} {
			peerNoise := all[peer][noise("p99")]
			l.want(f["p99"] <= 1.05*all[peer]["p99"]+math.Hypot(f[noise("p99")], peerNoise), "p99 %.1f ms, %s has %.1f", f["p99"], peer, all[peer]["p99"])
		}
		return l
	},
}
