package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/managedpg/managedpg/internal/base"
)

// cacheUser is a stmtCache with base statements that tell when they are closed.
type cacheUser struct {
	*stmtCache
	closed []string
}

// nowhere is a connection of a driver that we know nothing of.
var nowhere = func() *physical {
	c, err := base.Own("nowhere", fakeConnector{}).Connect(context.Background())
	if err != nil {
		panic(err)
	}
	return newPhysical(c)
}()

func newCacheUser(limit int) *cacheUser { return &cacheUser{stmtCache: newStmtCache(limit)} }

// use is what PrepareContext does.
func (u *cacheUser) use(query string) *cachedStmt {
	if s := u.get(query, 0); s != nil {
		return s
	}
	return u.add(&cachedStmt{base: &countedStmt{query: query, user: u}, query: query, text: new(text), phys: nowhere})
}

// pass uses a statement and gives it back.
func (u *cacheUser) pass(queries ...string) {
	for _, q := range queries {
		_ = u.release(u.use(q))
	}
}

func (u *cacheUser) wantClosed(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(u.closed, want) {
		t.Errorf("closed %q, want %q", u.closed, want)
	}
	u.closed = nil
}

type countedStmt struct {
	driver.Stmt
	query string
	user  *cacheUser
	done  bool
}

func (s *countedStmt) Close() error {
	if s.done {
		panic("closed twice: " + s.query)
	}
	s.done = true
	s.user.closed = append(s.user.closed, s.query)
	return nil
}

func TestStmtCacheKeeps(t *testing.T) {
	u := newCacheUser(2)
	a := u.use("a")
	_ = u.release(a)
	if again := u.use("a"); again != a {
		t.Error("a statement that was given back is prepared again")
	}
	u.wantClosed(t)
}

func TestStmtCacheEvictsLeastRecentlyUsed(t *testing.T) {
	u := newCacheUser(2)
	u.pass("a", "b", "a", "c")
	u.wantClosed(t, "b")
	u.pass("d")
	u.wantClosed(t, "a")
	u.pass("c", "d")
	u.wantClosed(t)
}

// A statement in use is never closed, and what there is beyond the limit goes as soon as it is given back.
func TestStmtCacheInUse(t *testing.T) {
	u := newCacheUser(2)
	a, b, c := u.use("a"), u.use("b"), u.use("c")
	u.wantClosed(t)
	a2 := u.use("a")
	if a2 != a {
		t.Error("a statement in use is prepared again")
	}
	_ = u.release(b)
	u.wantClosed(t, "b")
	_ = u.release(a)
	_ = u.release(a2)
	_ = u.release(c)
	u.wantClosed(t)
	u.pass("d")
	u.wantClosed(t, "c") // a was asked for later
}

func TestStmtCacheEvict(t *testing.T) {
	u := newCacheUser(2)
	a := u.use("a")
	u.evict(a)
	u.evict(a)
	if again := u.use("a"); again == a {
		t.Error("an evicted statement is found again")
	}
	_ = u.release(a)
	u.wantClosed(t, "a")
}

func TestStmtCacheClear(t *testing.T) {
	u := newCacheUser(3)
	u.pass("a", "b")
	c := u.use("c")
	u.clear()
	u.wantClosed(t) // the server has forgotten them
	if u.recent.Len() != 0 || u.use("c") == c {
		t.Error("a forgotten statement is found")
	}
}

// Without a cache, and for a COPY, the base statement ends with the logical one.
func TestStmtCacheKeepsNothing(t *testing.T) {
	u := &cacheUser{}
	u.pass("a", "a")
	u.wantClosed(t, "a", "a")
	u.clear()

	u = newCacheUser(2)
	u.pass("COPY t FROM STDIN", "COPY t FROM STDIN")
	u.wantClosed(t, "COPY t FROM STDIN", "COPY t FROM STDIN")
}

// Whatever the order of things, at most limit unused statements are kept, none in use is closed, and none is leaked.
func TestStmtCacheRandomly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		limit := 1 + rng.IntN(4)
		u := newCacheUser(limit)
		var all []*cachedStmt
		var held []*cachedStmt
		for range 100 {
			switch n := rng.IntN(10); {
			case n < 5:
				s := u.use(string(rune('a' + rng.IntN(8))))
				held = append(held, s)
				if !slices.Contains(all, s) {
					all = append(all, s)
				}
			case n < 9 && len(held) > 0:
				i := rng.IntN(len(held))
				_ = u.release(held[i])
				held = slices.Delete(held, i, i+1)
			case n == 9 && len(held) > 0:
				u.evict(held[rng.IntN(len(held))])
			}
			for _, s := range held {
				if s.base.(*countedStmt).done {
					t.Fatalf("%q is closed while it is in use", s.query)
				}
			}
			if n := u.recent.Len(); n > limit && n > len(held) {
				t.Fatalf("%d statements kept, with a limit of %d and %d in use", n, limit, len(held))
			}
			if u.recent.Len() != len(u.byQuery) {
				t.Fatalf("%d in the list, %d by their text", u.recent.Len(), len(u.byQuery))
			}
		}
		for _, s := range held {
			_ = u.release(s)
		}
		u.limit = 0
		u.trim()
		for _, s := range all {
			if !s.base.(*countedStmt).done {
				t.Fatalf("%q was never closed", s.query)
			}
		}
	}
}

// An error of closing is the caller's.
func TestStmtCacheCloseError(t *testing.T) {
	bad := errors.New("no")
	var c *stmtCache
	if err := c.release(c.add(&cachedStmt{base: badStmt{err: bad}, query: "a", phys: nowhere})); !errors.Is(err, bad) {
		t.Errorf("release: %v", err)
	}
}

type badStmt struct {
	driver.Stmt
	err error
}

func (s badStmt) Close() error { return s.err }
