package main

import "testing"

// BenchmarkFake runs the fake section's matrix under the testing package, for its profiles:
//
//	go test -run - -bench 'Fake/by_the_driver/Exec$' -cpu 1 -cpuprofile cpu.out
func BenchmarkFake(b *testing.B) {
	s, err := fakeSection()
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range s.comparisons {
		b.Run(c.subject.name, func(b *testing.B) {
			for i := range s.workloads {
				w := &s.workloads[i]
				b.Run(w.name, func(b *testing.B) {
					bench, err := c.subject.bench(w)
					if err != nil {
						b.Fatal(err)
					}
					defer bench.close()
					b.ReportAllocs()
					for b.Loop() {
						if err := bench.call(); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		})
	}
}
