// Package single has what one goroutine at a time writes, and others read meanwhile: a Counter, and a State, which others
// change by CompareAndSwap or Swap only.
//
// sync/atomic has but one kind of store, which on amd64 locks the cache line and waits until every core sees it, for 10 to 20 ns. Here less
// is needed: that nobody reads half of it, and that stores are seen in their order. There any store does that. The race detector
// wouldn't know, so for it, and elsewhere, it is sync/atomic's.
package single
