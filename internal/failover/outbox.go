package failover

import (
	"runtime/debug"
	"sync"
)

// outbox is what is due to code that isn't the group's. It is filled under the group's lock, in the order of what happened, and emptied without
// it. Its own lock comes after the group's.
type outbox struct {
	strays   *strays
	panicked func(value any, stack []byte) // is told of a panic in the news

	mu      sync.Mutex // guards what follows
	calls   []func()   // Drop, Drain, Stuck and cancellations that are due
	calling bool       // a goroutine makes them
	news    []func()   // log records and OnFailover, which may take their time
	telling bool       // a goroutine tells them
}

// post queues a callback for the next deliver.
func (o *outbox) post(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, f)
}

// deliver makes the callbacks that are due, one at a time and in order, unless another goroutine is at it.
func (o *outbox) deliver() {
	o.mu.Lock()
	if o.calling {
		o.mu.Unlock()
		return
	}
	o.calling = true
	for len(o.calls) > 0 {
		f := o.calls[0]
		o.calls = o.calls[1:]
		o.mu.Unlock()
		f()
		o.mu.Lock()
	}
	o.calling = false
	o.mu.Unlock()
}

// tell queues news for the goroutine that tells them in order, and starts it if there is none.
func (o *outbox) tell(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.news = append(o.news, f)
	if !o.telling {
		o.telling = true
		o.strays.run(o.teller)
	}
}

func (o *outbox) teller() {
	o.mu.Lock()
	for len(o.news) > 0 {
		f := o.news[0]
		o.news = o.news[1:]
		o.mu.Unlock()
		o.contained(f)
		o.mu.Lock()
	}
	o.telling = false
	o.mu.Unlock()
}

// contained keeps a panic of OnFailover from ending the program.
func (o *outbox) contained(f func()) {
	defer func() {
		if v := recover(); v != nil {
			o.panicked(v, debug.Stack())
		}
	}()
	f()
}
