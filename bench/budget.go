package main

import (
	"fmt"
	"math"
	"strings"
)

// budget is what a subject may cost above the one it is compared with. The zero value allows everything.
type budget struct {
	ns      float64 // 0: no limit
	ratio   float64 // 0: no limit
	allocs  float64 // a limit only if counted
	counted bool
}

func (b budget) String() string {
	var parts []string
	if b.ns > 0 {
		parts = append(parts, fmt.Sprintf("%.0f ns", b.ns))
	}
	if b.ratio > 0 {
		parts = append(parts, fmt.Sprintf("%.3f", b.ratio))
	}
	if b.counted {
		parts = append(parts, fmt.Sprintf("%.0f allocs", b.allocs))
	}
	return strings.Join(parts, ", ")
}

// verdict holds a result against the budget.
func (b budget) verdict(r result) string {
	if b == (budget{}) {
		return ""
	}
	var v verdict
	if b.ns > 0 {
		v.atMost(r.delta, b.ns, r.deltaError)
	}
	if b.ratio > 0 {
		v.atMost(r.ratio, b.ratio, r.ratioError)
	}
	if b.counted {
		const stray = 0.1 // what another goroutine may have allocated meanwhile, in a call
		v.atMost(r.allocs-r.baseAllocs, b.allocs+stray, 0)
	}
	return v.String()
}

// verdict is FAIL when a limit is exceeded by more than the noise, else PASS, with a question mark when the measurement is too coarse to tell.
type verdict struct{ over, near bool }

func (v *verdict) atMost(got, limit, spread float64) {
	v.over = v.over || got > limit+spread
	v.near = v.near || math.Abs(got-limit) < spread
}

func (v *verdict) atLeast(got, limit, spread float64) { v.atMost(-got, -limit, spread) }

func (v verdict) String() string {
	text := "PASS"
	if v.over {
		text = "FAIL"
	}
	if v.near && !v.over {
		text += "?"
	}
	return text
}

// ahead says whether a subject is quicker than a peer, when both were compared with the same one.
func ahead(subject, peer summary) string {
	var v verdict
	v.atMost(subject.ratio, peer.ratio, math.Hypot(subject.ratioError, peer.ratioError))
	return v.String()
}
