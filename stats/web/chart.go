package web

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/managedpg/managedpg/stats"
)

// A chart's drawing is stretched to the page's width, so that one unit is a second; its height is in pixels.
const (
	chartWidth  = int(window / time.Second)
	chartHeight = 150
	chartRoom   = 14 // above the highest value
)

// chart is the use of a pool over the last minutes.
type chart struct {
	Width, Height, Total int
	Used, Waiting        string // areas: what is in use, and upon it who waits
	Open                 string // a line
	Limit                bool
	LimitY               string
	LimitText            string
	Top                  string // the scale's end
	Label                string
	Since                string // when it began to be drawn, if less than the window ago
}

// draw makes a chart of samples; the limit is -1 where there is none or it isn't known.
func draw(samples []sample, now time.Time, limit int64) chart {
	most := max(limit, 1)
	for _, s := range samples {
		most = max(most, s.open, s.used+s.waiting)
	}
	if limit > 0 {
		most = min(most, 3*limit) // so that a long queue doesn't make a flat line of the pool
	}
	x := func(at time.Time) float64 { return max(0, float64(chartWidth)-now.Sub(at).Seconds()) }
	y := func(n int64) float64 {
		return float64(chartHeight) - float64(min(n, most))/float64(most)*float64(chartHeight-chartRoom)
	}
	c := chart{Width: chartWidth, Height: chartHeight, Total: chartHeight + 20, Top: fmt.Sprint(most)}
	if limit > 0 {
		c.Limit, c.LimitY, c.LimitText = true, number(y(limit)), fmt.Sprintf("limit %d", limit)
	}
	var used, demand, open []point
	for _, s := range samples {
		used = append(used, point{x(s.at), y(s.used)})
		demand = append(demand, point{x(s.at), y(s.used + s.waiting)})
		open = append(open, point{x(s.at), y(s.open)})
	}
	bottom := []point{{x(samples[len(samples)-1].at), float64(chartHeight)}, {x(samples[0].at), float64(chartHeight)}}
	c.Used = area(used, bottom)
	c.Waiting = area(demand, reverse(used))
	c.Open = line(open)
	last := samples[len(samples)-1]
	c.Label = fmt.Sprintf("%d in use, %d open, %d waiting now", last.used, last.open, last.waiting)
	if began := now.Sub(samples[0].at); began < window-2*interval {
		c.Since = short(began.Round(time.Second))
	}
	return c
}

type point struct{ x, y float64 }

// line goes from point to point in steps: a value holds until the next sample.
func line(points []point) string {
	var b strings.Builder
	for i, p := range points {
		switch {
		case i == 0:
			fmt.Fprintf(&b, "M%s %s", number(p.x), number(p.y))
		case p.y == points[i-1].y && i < len(points)-1:
			// the next one draws the line
		default:
			fmt.Fprintf(&b, "H%sV%s", number(p.x), number(p.y))
		}
	}
	return b.String()
}

// area lies between two lines, of which the second goes backwards.
func area(upper, lower []point) string {
	var b strings.Builder
	b.WriteString(line(upper))
	for i, p := range lower {
		if i > 0 {
			fmt.Fprintf(&b, "V%s", number(p.y))
		}
		fmt.Fprintf(&b, "L%s %s", number(p.x), number(p.y))
	}
	b.WriteString("Z")
	return b.String()
}

func reverse(points []point) []point {
	var back []point
	for i := len(points) - 1; i >= 0; i-- {
		back = append(back, points[i])
	}
	return back
}

func number(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", f), "0"), ".")
}

// bars is a histogram. All have the same buckets, so that they can be compared.
type bars struct {
	Title, Help string
	stats.Latency
	Bars          []bar
	Width, Height int
}

type bar struct {
	X, Y, H string
	Title   string
}

const barsHeight = 56

func histogram(title, help string, l stats.Latency) bars {
	b := bars{Title: title, Help: help, Latency: l, Height: barsHeight}
	var most int64
	for _, n := range l.Buckets() {
		most = max(most, n)
	}
	var lower time.Duration
	for bound, n := range l.Buckets() {
		if n > 0 {
			h := math.Max(2, float64(n)/float64(most)*barsHeight)
			title := fmt.Sprintf("%d times shorter than %s", n, short(bound))
			if bound == stats.Longer {
				title = fmt.Sprintf("%d times longer than %s", n, short(lower))
			} else if lower > 0 {
				title = fmt.Sprintf("%d times from %s to %s", n, short(lower), short(bound))
			}
			b.Bars = append(b.Bars, bar{X: number(float64(b.Width) + 0.1), Y: number(barsHeight - h), H: number(h), Title: title})
		}
		b.Width++
		lower = bound
	}
	return b
}
