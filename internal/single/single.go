// Package single has a counter of one goroutine's, which others read meanwhile.
package single
