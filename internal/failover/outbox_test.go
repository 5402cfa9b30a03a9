package failover

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Callbacks are made one at a time and in order, whoever delivers them, and without a lock: one may post another.
func TestOutboxDeliversInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o outbox
		var made []int
		for i := range 3 {
			o.post(func() {
				time.Sleep(time.Second)
				made = append(made, i)
				if i == 0 {
					o.post(func() { made = append(made, 3) })
					o.deliver() // another goroutine is at it: this one
				}
			})
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(o.deliver)
		}
		all.Wait()
		if want := []int{0, 1, 2, 3}; !slices.Equal(made, want) {
			t.Errorf("%v, want %v", made, want)
		}
	})
}

// News are told in order, by a goroutine that lives while there are some. A panic in one is told of, and keeps nobody from the next.
func TestOutboxTellsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		o := outbox{strays: new(strays), panicked: func(v any, _ []byte) { told = append(told, fmt.Sprint(v)) }}
		for _, news := range []string{"one", "oops", "two"} {
			o.tell(func() {
				time.Sleep(time.Second)
				if news == "oops" {
					panic(news)
				}
				told = append(told, news)
			})
		}
		began := time.Now()
		o.strays.wait(time.Millisecond)
		if took := time.Since(began); took != time.Millisecond {
			t.Errorf("waited %v for news that take their time", took)
		}
		o.strays.wait(time.Hour)
		if want := []string{"one", "oops", "two"}; !slices.Equal(told, want) {
			t.Errorf("%v, want %v", told, want)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("waited %v, want 3s", took)
		}
		o.strays.wait(time.Hour)
	})
}
