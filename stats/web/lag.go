package web

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/managedpg/managedpg/failover"
)

// lagPoint is how far a standby's replay was behind, from then until the next point. Eight bytes, and only where it changes: half an hour of one
// that is never behind is one of them.
type lagPoint struct {
	at     uint32 // in Unix seconds
	behind int32  // in milliseconds; notKnown: the standby wasn't there, or can't tell
}

const notKnown = -1

// addLags takes in how far the endpoints are behind, and forgets what has become too old, and endpoints that are no more.
func (h *history) addLags(endpoints []failover.EndpointHealth, now time.Time) {
	next := make(map[string][]lagPoint, len(endpoints))
	for i := range endpoints {
		e := &endpoints[i]
		behind := int32(min(e.ReplicationLag.Milliseconds(), math.MaxInt32))
		if e.ReplicationLag < 0 || e.State != failover.Up && e.State != failover.Suspect {
			behind = notKnown
		}
		points := h.lags[e.Endpoint]
		if n := len(points); n == 0 || points[n-1].behind != behind {
			points = append(points, lagPoint{uint32(now.Unix()), behind})
		}
		for len(points) > 1 && now.Unix()-int64(points[1].at) > int64((past+step).Seconds()) {
			points = points[1:]
		}
		next[e.Endpoint] = points
	}
	h.lags = next
}

// lagChart draws how far a standby was behind over the charts' time; of one that never was there is the title alone.
func lagChart(points []lagPoint, now time.Time, window time.Duration) *chart {
	if len(points) == 0 {
		return nil
	}
	width := window / bins
	last := now.Truncate(width)
	all := make([]bin, bins+1)
	at := func(second uint32) int {
		return bins - int(last.Sub(time.Unix(int64(second), 0).Truncate(width))/width)
	}
	most, known := 0.0, false
	for i, p := range points {
		end := bins
		if i+1 < len(points) {
			end = at(points[i+1].at)
		}
		for b := max(0, at(p.at)); b <= end; b++ {
			all[b].known = true
			if p.behind != notKnown {
				known = true
				all[b].behind = max(all[b].behind, float64(p.behind)/1000)
				most = max(most, all[b].behind)
			}
		}
	}
	over := short(min(window, now.Sub(time.Unix(int64(points[0].at), 0)).Round(time.Second)))
	switch {
	case !known:
		return nil
	case most == 0:
		return &chart{Title: "its replay was not behind in the last " + over}
	}
	c := canvas{bins: all, shift: float64(now.Sub(last)) / float64(width)}
	drawn := c.draw(fmt.Sprintf("its replay was behind by %s at most in the last %s", seconds(most), over), 36, most,
		[]series{seriesOf("lag", "behind", func(b *bin) float64 { return b.behind })})
	drawn.Top, drawn.From, drawn.Label = seconds(most), short(window)+" ago", seconds(all[bins].behind)+" now"
	return &drawn
}

func seconds(s float64) string { return short(time.Duration(s * float64(time.Second))) }

// clonedLags is how far the endpoints were behind, for a reader who has no lock.
func (h *history) clonedLags() map[string][]lagPoint {
	all := make(map[string][]lagPoint, len(h.lags))
	for name, points := range h.lags {
		all[name] = slices.Clone(points)
	}
	return all
}
