package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// apart starts a server on one core and keeps this process on another, as if each had a machine of its own. Left to the
// system the two share a core or don't, which makes a round trip five times as long, and changes its mind all the time. It
// returns what undoes that, and false where there are no two cores.
func apart(start func() error) (undo func(), done bool, err error) {
	var before unix.CPUSet
	if unix.SchedGetaffinity(0, &before) != nil || before.Count() < 2 {
		return func() {}, false, start()
	}
	var cores []int
	for core := 0; len(cores) < 2; core++ {
		if before.IsSet(core) {
			cores = append(cores, core)
		}
	}
	undo = func() { stay(&before) }
	stayOn(cores[1]) // which the server inherits
	if err := start(); err != nil {
		undo()
		return nil, false, err
	}
	stayOn(cores[0])
	return undo, true, nil
}

func stayOn(core int) {
	var set unix.CPUSet
	set.Set(core)
	stay(&set)
}

// stay keeps each thread of the process, and those it will make, on the cores of the set.
func stay(set *unix.CPUSet) {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.SchedSetaffinity(id, set) // it may have ended
		}
	}
}
