// Package pool lends things that are costly to open, to as many at a time as there are. It knows neither SQL nor a driver.
//
// # Demand
//
// Who finds nothing free waits in one queue, for a thing to be given back or for a dial, whichever comes first. They are served
// first come, first served, exactly, for as long as the queue drains. When it stands, those who have waited longest are the ones whom
// it helps least: served in order, everybody gets a connection with no time left to use it. So then the newest are
// served first; who waits longest is told by its own context or by the pool's timeout.
//
// The queue stands while whoever has waited longest has used up three quarters of the time that it may wait, and for as long again
// after somebody's time has run out in it. (CoDel, RFC 8289, goes by the time waited alone, as routers don't know who gives up
// when. Here that is known: a burst whose callers have no deadline is served in order however long it takes, and one whose callers have
// 200 ms isn't served in order for longer than 150 ms. A share of the time needs no unit. Half of it gave up on callers in a burst near the
// capacity who would still have been served; nine tenths, at 1.2 times the capacity, served half of all with a tenth of their time
// left. The simulation says so.)
//
// # Supply
//
// A dial belongs to the pool and not to whoever it was begun for: its context has the caller's values and not its end. What it
// brings goes to whoever waits, else it is free. There are never more dials under way than there are who wait, but for slow
// ones that whoever waits doesn't hope for any more. After two
// dials in a row that failed the next waits, ever longer, until one succeeds; who can only be helped by a dial then gets the last error at once.
// A thing that is lent and being made fit for its next user is hoped for as a dial is, but by nobody for longer than a dial takes.
//
// Where nothing limits their number nothing is scarce, and it is as with a bare driver: everybody has a dial of its own, and what that meets, or one
// whose caller has gone.
//
// # Upkeep
//
// A goroutine closes what has been free for too long, and keeps some ready.
package pool
