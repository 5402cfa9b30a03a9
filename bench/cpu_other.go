//go:build !unix

package main

import "time"

// cpu is the wall clock where the process's CPU time can't be had.
func cpu() time.Duration { return wall() }
