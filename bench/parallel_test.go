package main

import (
	"strings"
	"testing"
	"time"
)

// BenchmarkParallel runs the parallel section's crowds under the testing package, for its profiles:
//
//	go test -run - -bench 'Parallel/8_in_a_tight_loop/by_the_driver' -cpuprofile cpu.out -mutexprofile mutex.out
func BenchmarkParallel(b *testing.B) {
	t, err := parallelSection()
	if err != nil {
		b.Fatal(err)
	}
	defer t.close()
	for _, c := range t.contests {
		b.Run(c.name, func(b *testing.B) {
			for _, s := range c.subjects {
				b.Run(strings.ReplaceAll(s.name, "/", " "), func(b *testing.B) {
					for b.Loop() {
						got, err := c.heat(s, time.Second)
						if err != nil {
							b.Fatal(err)
						}
						b.ReportMetric(got.perSecond, "calls/s")
						b.ReportMetric(got.p99/1e3, "p99-us")
					}
				})
			}
		})
	}
}
