package conn

import (
	"context"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/base"
)

// What keeps the look at the stack from a request's context must not keep it from the opener's.
func TestOpenersContextIsRecognisedByItsShape(t *testing.T) {
	if !parentsKnown {
		t.Fatal("the parent of a context can't be seen any more: each context that can be cancelled costs a look at the stack")
	}
	background := context.Background()
	withValue := context.WithValue(background, attemptKey{}, nil)
	withLimit, cancel := context.WithTimeout(background, time.Hour)
	defer cancel()
	for name, ctx := range map[string]context.Context{
		"background": background, "a value": withValue, "a limit": withLimit,
		"below a value": withCancel(withValue), "below a limit": withCancel(withLimit), "below another": withCancel(withCancel(background)),
	} {
		if mayBeOpeners(ctx) {
			t.Errorf("%s: costs a look at the stack", name)
		}
	}
	opener := withCancel(background)
	for _, ctx := range []context.Context{opener, context.WithValue(opener, attemptKey{}, nil), custom{opener}} {
		if !mayBeOpeners(ctx) {
			t.Errorf("%v isn't looked at", ctx)
		}
	}
}

// custom is a context of somebody's own.
type custom struct{ context.Context }

// A connection that sql.DB's opener has opened is put back unused when whoever it was for has gone in that moment, and database/sql
// doesn't reset it for the next, whose first call makes the checkout.
func TestOpenedForWhoHasGone(t *testing.T) {
	p := New(Options{Name: "app", Size: 1}, straight{base.Own("nowhere", &soleBase{})})
	defer p.Close()
	c := &Conn{home: p, pool: p} // as Connect makes it for the opener
	if !c.IsValid() {
		t.Fatal("it isn't kept")
	}
	if _, err := c.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !c.IsValid() || p.lending.Figures().Waiting != 0 {
		t.Error("it isn't given back")
	}
}
