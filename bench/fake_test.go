package main

import (
	"regexp"
	"strings"
	"testing"
)

// BenchmarkFake runs the fake section's matrix under the testing package, for its profiles:
//
//	go test -run - -bench 'Fake/by_the_driver/Exec$' -cpu 1 -cpuprofile cpu.out
func BenchmarkFake(b *testing.B) {
	s := fakeSection()
	for _, c := range s.comparisons {
		if strings.Contains(c.against.name, "none kept") {
			continue // the same subject once more
		}
		b.Run(strings.ReplaceAll(c.subject.name, "/", " "), func(b *testing.B) {
			for i := range s.workloads {
				w := &s.workloads[i]
				b.Run(w.name, func(b *testing.B) {
					bench, err := c.subject.bench(w, cpu)
					if err != nil {
						b.Fatal(err)
					}
					defer bench.close()
					b.ReportAllocs()
					start := cpu()
					for b.Loop() {
						if err := bench.call(); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
				})
			}
		})
	}
}

// What Usage costs is told by a part of leak detection's that has no name outside of it.
func TestUsageRow(t *testing.T) {
	var out strings.Builder
	if err := (usage{}).run(&out, true, regexp.MustCompile("^usage")); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "| checkout          | usage ") {
		t.Errorf("no row in\n%s", out.String())
	}
}
