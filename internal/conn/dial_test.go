package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/evidence"
	"github.com/managedpg/managedpg/stats"
)

// restless is a Router that has the connections of its endpoint closed during the first dials to it.
type restless struct {
	straight
	signals evidence.Signals
	moves   atomic.Int64 // so many dials are still to meet that
	dialed  atomic.Int64
}

func (r *restless) Connect(ctx context.Context, _ time.Time, open func(context.Context, Route) error) error {
	err := open(ctx, Route{Endpoint: r.endpoint, Signals: &r.signals})
	r.dialed.Add(1)
	if r.moves.Add(-1) >= 0 {
		r.signals.Epoch.Add(1)
	}
	return err
}

// A dial whose connection may not be used, since a probe says otherwise than it, is made again: at once, and then at a pace.
func TestDialsThatAreOvertakenArePaced(t *testing.T) {
	for _, test := range []struct {
		moves           int64
		atLeast, atMost time.Duration
	}{
		{moves: 1},
		{moves: 1000, atLeast: 75 * time.Second, atMost: 85 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &restless{straight: straight{base.Own("nowhere", fakeConnector{})}}
			r.moves.Store(test.moves)
			p := New(Options{Name: "app", Logger: func() *slog.Logger { return slog.New(slog.DiscardHandler) }, Size: 1, Timeout: -1}, r)
			defer p.Close()
			began := time.Now()
			c, err := p.Connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took < test.atLeast || took > test.atMost {
				t.Errorf("%d dials were overtaken, and it took %v", test.moves, took)
			}
			if n := r.dialed.Load(); n != test.moves+1 {
				t.Errorf("%d dials", n)
			}
			giveBack(c)
		})
	}
}

// Close ends such a dial while it waits.
func TestCloseEndsADialThatIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &restless{straight: straight{base.Own("nowhere", fakeConnector{})}}
		r.moves.Store(1 << 40)
		p := New(Options{Name: "app", Logger: func() *slog.Logger { return slog.New(slog.DiscardHandler) }, Size: 1, Timeout: -1}, r)
		w := wait(t.Context(), p)
		_ = p.Close()
		if w.waits() || !errors.Is(w.err, ErrClosed) {
			t.Errorf("who waited is told %v", w.err)
		}
		n := r.dialed.Load()
		time.Sleep(time.Minute)
		if more := r.dialed.Load() - n; more > 0 {
			t.Errorf("%d dials after Close", more)
		}
	})
}

var errTurnedDown = errors.New("another one is fitter")

// choosy is a Router that turns the first connection down.
type choosy struct {
	straight
	asked *int
}

func (c choosy) Connect(ctx context.Context, until time.Time, open func(context.Context, Route) error) error {
	err := c.straight.Connect(ctx, until, open)
	if errors.Is(err, errTurnedDown) {
		return c.straight.Connect(ctx, until, open)
	}
	return err
}

func (c choosy) Admit(context.Context, base.Server) error {
	if *c.asked++; *c.asked == 1 {
		return errTurnedDown
	}
	return nil
}

// A connection that was opened and turned down, since another server is wanted, is no error of a dial; one that was refused is.
func TestWhatIsTurnedDownIsNoFailedDial(t *testing.T) {
	refuse := false
	e := base.Own("nowhere", connectorFunc(func(context.Context) (driver.Conn, error) {
		if refuse {
			return nil, errors.New("refused")
		}
		return fakeConn{}, nil
	}))
	asked := 0
	p := New(Options{Name: "app", Logger: func() *slog.Logger { return slog.New(slog.DiscardHandler) }, Size: 1}, choosy{straight{e}, &asked})
	defer p.Close()
	c := hold(t, p)
	if errs := figures(p).Errors; asked != 2 || len(errs) != 0 {
		t.Errorf("asked %d times, errors are %+v", asked, errs)
	}
	_ = c.Close()
	refuse = true
	if _, err := p.Connect(t.Context()); err == nil {
		t.Fatal("connected")
	}
	dials := 0
	for _, e := range figures(p).Errors {
		if e.Kind == stats.ErrorDial {
			dials++
		}
	}
	if dials != 1 {
		t.Errorf("after a refused dial the errors are %+v", figures(p).Errors)
	}
}

type connectorFunc func(context.Context) (driver.Conn, error)

func (f connectorFunc) Connect(ctx context.Context) (driver.Conn, error) { return f(ctx) }
func (connectorFunc) Driver() driver.Driver                              { return nil }
