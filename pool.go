package managedpg

import (
	"context"
	sqldriver "database/sql/driver"
	"time"

	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// Pool is the pool behind a sql.DB: its figures, its leaks, and what can be done to it. [PoolOf] and [Pools] find it.
type Pool driver.Connector

func (p *Pool) connector() *driver.Connector { return (*driver.Connector)(p) }

// Name is the pool's name in stats, logs and metrics: pool_name, with #2, #3 behind it if another pool has that already.
func (p *Pool) Name() string { return p.connector().Name() }

// Stats are the pool's figures now.
func (p *Pool) Stats() stats.Snapshot { return p.connector().Stats() }

// Totals are the figures of Stats and Health counted since Opened, whatever ResetStats did, for those who publish
// counters: a counter that goes back would count as a restart. LongestHolders isn't filled in.
func (p *Pool) Totals() (stats.Snapshot, failover.Health) { return p.connector().Totals() }

// Opened is when the pool was made.
func (p *Pool) Opened() time.Time { return p.connector().Opened() }

// ResetStats makes the figures count anew from now on. What is open or in use stays counted as such.
func (p *Pool) ResetStats() { p.connector().ResetStats() }

// Leaks are the checkouts that have been held for longer than leak_threshold, the longest first. It is empty without leak
// detection.
func (p *Pool) Leaks() []leak.Report { return p.connector().Leaks() }

// Holders are the n checkouts that are held for longest now, whatever their age, the longest first. It is empty without
// leak detection.
func (p *Pool) Holders(n int) []leak.Report { return p.connector().Holders(n) }

// Usage says which lines of code used the pool's time during the last five minutes, those first that held connections for
// longest. It is an estimate from samples, and empty without leak detection.
func (p *Pool) Usage() []leak.Usage { return p.connector().Usage() }

// Health is what the probes of the endpoints have found.
func (p *Pool) Health() failover.Health { return p.connector().Health() }

// CheckNow probes all endpoints now, within ctx and health_check_timeout, and returns what was found. With standby_reads the pool for reads
// probes them too.
func (p *Pool) CheckNow(ctx context.Context) failover.Health { return p.connector().CheckNow(ctx) }

// Failover says which endpoint is used, and how it came to that.
func (p *Pool) Failover() failover.Status { return p.connector().Failover() }

// Failback moves to the best endpoint that a probe finds usable now, without waiting for failback_after. Connections in
// use elsewhere are closed when they are given back. The error, a failover.NoEndpointError, says why it stays where it is.
func (p *Pool) Failback(ctx context.Context) error { return p.connector().Failback(ctx) }

// Drain closes all free connections now, and each of the others when it is given back, so that from now on only new ones
// are used: after a change of a role's settings, say, or of the server behind an address. With standby_reads those of the pool for
// reads too.
func (p *Pool) Drain() { p.connector().Drain() }

// Resize changes pool_size and max_overflow (-1: no limit) at once. Surplus free connections are closed, those in use when they are
// given back. It is an error for a size below 1 and a max_overflow below -1, both up to 10000, and without pool_size. A pool for reads
// keeps its limits: it is resized by its own handle, which Pools has.
func (p *Pool) Resize(size, maxOverflow int) error { return p.connector().Resize(size, maxOverflow) }

// Pause begins no checkout any more until Resume: those who want a connection wait, within their own limits (their context,
// pool_timeout). It returns when all connections were given back; else with ctx's error and who still holds some, and the pool stays
// paused all the same. It is an error without pool_size. With standby_reads the pool for reads is paused too.
func (p *Pool) Pause(ctx context.Context) error { return p.connector().Pause(ctx) }

// Resume ends Pause. Those who have waited are served.
func (p *Pool) Resume() { p.connector().Resume() }

// ForgetTimelines makes fencing forget what it has seen, so that a server on a lower timeline than before is used again: an
// operator's word after a restore from a backup. The endpoints are probed anew. With standby_reads the pool for reads forgets too.
func (p *Pool) ForgetTimelines() { p.connector().ForgetTimelines() }

// Connect is for database/sql, which calls it for a connection: a Pool is a database/sql/driver.Connector.
func (p *Pool) Connect(ctx context.Context) (sqldriver.Conn, error) {
	return p.connector().Connect(ctx)
}

// Driver is for database/sql.
func (p *Pool) Driver() sqldriver.Driver { return p.connector().Driver() }

// Close closes the pool: free connections at once, those in use when they are given back. The Close of its sql.DB calls it.
func (p *Pool) Close() error { return p.connector().Close() }

var _ sqldriver.Connector = (*Pool)(nil)
