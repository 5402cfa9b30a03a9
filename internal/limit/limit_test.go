package limit_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/internal/limit"
)

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := limit.New(t.Context(), 5*time.Second)
		defer cancel()
		derived, cancelDerived := context.WithCancel(ctx)
		defer cancelDerived()
		time.Sleep(2 * time.Second)
		limit.Stop(derived)
		time.Sleep(limit.Hook - 1)
		limit.Stop(derived)
		limit.Start(derived)
		if _, limited := ctx.Deadline(); limited || ctx.Err() != nil {
			t.Error("it doesn't stand still")
		}
		limit.Start(derived)
		if at, limited := ctx.Deadline(); !limited || time.Until(at) != 3*time.Second {
			t.Errorf("it has %v left", time.Until(at))
		}
		began := time.Now()
		<-derived.Done()
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it went on for %v", took)
		}
		if ctx.Err() != context.DeadlineExceeded || !limit.Passed(ctx) {
			t.Errorf("it ended by %v", ctx.Err())
		}
	})
}

func TestLimitEndsWithItsParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, end := context.WithCancel(t.Context())
		ctx, cancel := limit.New(parent, 5*time.Second)
		defer cancel()
		limit.Stop(ctx)
		end()
		<-ctx.Done()
		if ctx.Err() != context.Canceled || limit.Passed(ctx) {
			t.Errorf("it ended by %v", ctx.Err())
		}
		limit.Start(ctx) // after its end, nothing happens
		time.Sleep(time.Minute)
	})
}

// Code of the user's that doesn't come back in its time is ended by it, and that isn't the limit.
func TestLimitOfAHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := limit.New(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		limit.Stop(ctx)
		<-ctx.Done()
		if took := time.Since(began); took != limit.Hook || ctx.Err() != context.DeadlineExceeded || limit.Passed(ctx) {
			t.Errorf("it ended after %v by %v", took, ctx.Err())
		}
		limit.Start(ctx)
	})
}
