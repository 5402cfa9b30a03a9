package conn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"runtime"
	"sync"
)

// waitedFor says that DB.conn has called with a connection that it has waited for, and not with one that it found free. It resets both, in two
// calls of one function, and a sql.DB of our own shows which is for those found free. Of a copy of database/sql nobody knows: false. Frames are
// left out as by findCaller.
func waitedFor(skip int) bool {
	pc, free := grabber(skip), firstGrab()
	return pc != 0 && free != 0 && pc != free && runtime.FuncForPC(pc).Entry() == runtime.FuncForPC(free).Entry()
}

// grabber is where DB.conn is in its calls; 0 if it isn't one of the frames.
func grabber(skip int) uintptr {
	var pcs [4 * manyFrames]uintptr // it is called seldom, and whoever is between is none of database/sql's
	for _, pc := range pcs[:runtime.Callers(skip, pcs[:])] {
		if callerAt(pc) == callerGrab {
			return pc
		}
	}
	return 0
}

// LearnFrames has that shown now, and not when it is first needed: goroutines come and go for it.
func LearnFrames() { firstGrab() }

// firstGrab is where that is when it has found a connection free.
var firstGrab = sync.OnceValue(func() uintptr {
	shown := &showing{}
	db := sql.OpenDB(shown)
	defer db.Close()
	for range 2 { // the second finds the first's free
		c, err := db.Conn(context.Background())
		if err != nil {
			return 0
		}
		_ = c.Close()
	}
	return shown.pc
})

// showing is a driver that shows where it is called from.
type showing struct {
	driver.Conn
	pc uintptr
}

func (s *showing) Connect(context.Context) (driver.Conn, error) { return s, nil }
func (s *showing) Driver() driver.Driver                        { return nil }
func (s *showing) Close() error                                 { return nil }

func (s *showing) ResetSession(context.Context) error {
	s.pc = grabber(0)
	return nil
}
