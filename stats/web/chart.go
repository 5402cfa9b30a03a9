package web

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/managedpg/managedpg/stats"
)

// A chart's drawing is stretched to the page's width, so that one unit is a bin; its height is in pixels.
const (
	bins      = 180
	chartRoom = 14 // above the highest value
)

// chart draws some series over the last minutes, one upon the other.
type chart struct {
	Title, Label       string
	Width, Height, All int // All: with what stands below
	Areas              []area
	Line               string // of what is open
	Limit              bool
	LimitY, LimitText  string
	Top                string // the scale's end
	From               string // its beginning
}

// area is one series of a chart.
type area struct{ Class, Name, Path string }

// bin is a stretch of a chart's time: the most that was seen in it, and what was counted in it a second.
type bin struct {
	known               bool
	open, used, waiting int64
	checkouts, dials    float64
	errors              [numErrorSums]float64
	behind              float64 // a standby's replay, in seconds
}

// binned divides the window before now, so that a bin begins at a round time and keeps its shape while it moves on.
func binned(samples []sample, now time.Time, window time.Duration) (all [bins + 1]bin, shift float64) {
	width := window / bins
	last := now.Truncate(width)
	shift = float64(now.Sub(last)) / float64(width)
	at := func(t time.Time) int { return bins - int(last.Sub(t.Truncate(width))/width) }
	for i, s := range samples {
		if i > 0 {
			rate(all[:], samples[i-1], s, at)
		}
		if n := at(s.at); n >= 0 {
			b := &all[n]
			b.known = true
			b.open, b.used, b.waiting = max(b.open, s.open), max(b.used, s.used), max(b.waiting, s.waiting)
		}
	}
	for i := 1; i < len(all); i++ { // samples may be farther apart than bins
		if before := all[i-1]; before.known && !all[i].known {
			all[i].known, all[i].open, all[i].used, all[i].waiting = true, before.open, before.used, before.waiting
		}
	}
	for i := range all {
		seconds := width.Seconds()
		if i == bins {
			seconds = max(1, now.Sub(last).Seconds())
		}
		all[i].checkouts /= seconds
		all[i].dials /= seconds
		for kind := range all[i].errors {
			all[i].errors[kind] /= seconds
		}
	}
	return all, shift
}

// rate spreads what was counted between two samples over the bins between them.
func rate(all []bin, a, b sample, at func(time.Time) int) {
	first, last := at(a.at), at(b.at)
	if first < last {
		first++ // what was counted until the first sample of a bin belongs to those before it, in so far as it is known
	}
	n := float64(last - first + 1)
	for i := max(first, 0); i <= last; i++ {
		all[i].checkouts += float64(b.checkouts-a.checkouts) / n
		all[i].dials += float64(b.dials-a.dials) / n
		for kind := range all[i].errors {
			all[i].errors[kind] += float64(b.errors[kind]-a.errors[kind]) / n
		}
	}
}

// charts are those of a pool; the limit is -1 where there is none or it isn't known.
func charts(samples []sample, now time.Time, window time.Duration, limit int64, governed bool) (use chart, rates []chart) {
	all, shift := binned(samples, now, window)
	from := short(window) + " ago"
	last := samples[len(samples)-1]
	c := canvas{bins: all[:], shift: shift}

	stacked := []series{seriesOf("used", "in use", func(b *bin) float64 { return float64(b.used) })}
	if governed {
		stacked = append(stacked, seriesOf("waiting", "waiting", func(b *bin) float64 { return float64(b.waiting) }))
	}
	most := float64(max(limit, 1))
	for i := range all {
		most = max(most, float64(all[i].open), float64(all[i].used+all[i].waiting))
	}
	if limit > 0 {
		most = min(most, 3*float64(limit)) // so that a long queue doesn't make a flat line of the pool
	}
	use = c.draw("Connections", 150, most, stacked)
	use.From, use.Top = from, fmt.Sprint(int64(most))
	use.Line = c.line(func(b *bin) float64 { return float64(b.open) }, use.Height, most)
	if limit > 0 {
		use.Limit, use.LimitText = true, fmt.Sprintf("limit %d", limit)
		use.LimitY = number(level(float64(limit), use.Height, most))
	}
	use.Label = fmt.Sprintf("%d in use, %d open, %d waiting now", last.used, last.open, last.waiting)
	rates = []chart{
		c.rates("Checkouts a second", seriesOf("used", "checkouts", func(b *bin) float64 { return b.checkouts })),
		c.rates("Errors a second", errorSeries("bad", "pool timeouts", timeouts), errorSeries("warn", "other checkouts", otherCheckouts),
			errorSeries("lost", "lost calls", lostCalls), errorSeries("quiet", "statements", statements)),
		c.rates("Dials a second", seriesOf("used", "opened", func(b *bin) float64 { return b.dials }), errorSeries("bad", "failed", failedDials)),
	}
	for i := range rates {
		rates[i].From = from
	}
	return use, rates
}

// series is a figure of each bin.
type series struct {
	class, name string
	of          func(*bin) float64
}

func seriesOf(class, name string, of func(*bin) float64) series { return series{class, name, of} }

func errorSeries(class, name string, kind int) series {
	return series{class, name, func(b *bin) float64 { return b.errors[kind] }}
}

// canvas draws bins.
type canvas struct {
	bins  []bin
	shift float64
}

func (c *canvas) rates(title string, all ...series) chart {
	most := 0.0
	for i := range c.bins {
		sum := 0.0
		for _, s := range all {
			sum += s.of(&c.bins[i])
		}
		most = max(most, sum)
	}
	drawn := c.draw(title, 64, max(most, 0.1), all)
	drawn.Top = fmt.Sprintf("%.3g", most)
	now := &c.bins[max(0, len(c.bins)-2)] // the last one isn't over
	for i, s := range all {
		if i > 0 {
			drawn.Label += ", "
		}
		drawn.Label += fmt.Sprintf("%.3g %s", s.of(now), s.name)
	}
	return drawn
}

// draw stacks series, of which the highest sum is most.
func (c *canvas) draw(title string, height int, most float64, all []series) chart {
	drawn := chart{Title: title, Width: bins, Height: height, All: height + 20}
	below := make([]float64, len(c.bins))
	for _, s := range all {
		above, some := make([]float64, len(c.bins)), false
		for i := range c.bins {
			v := s.of(&c.bins[i])
			some = some || v > 0
			above[i] = below[i] + v
		}
		a := area{Class: s.class, Name: s.name}
		if some {
			a.Path = c.area(above, below, height, most)
		}
		drawn.Areas = append(drawn.Areas, a)
		below = above
	}
	return drawn
}

func level(v float64, height int, most float64) float64 {
	return float64(height) - min(v, most)/most*float64(height-chartRoom)
}

// points are the steps of a figure from the first known bin to the present: each value holds until the next bin.
func (c *canvas) points(values func(int) float64, height int, most float64) (all []point) {
	for i := range c.bins {
		if !c.bins[i].known {
			continue
		}
		x, y := max(0, float64(i)-c.shift), level(values(i), height, most)
		end := point{max(0, min(bins, float64(i+1)-c.shift)), y}
		if n := len(all); n > 0 && all[n-1].y == y {
			all[n-1] = end
		} else {
			all = append(all, point{x, y}, end)
		}
	}
	return all
}

func (c *canvas) line(of func(*bin) float64, height int, most float64) string {
	return pathOf(c.points(func(i int) float64 { return of(&c.bins[i]) }, height, most))
}

// area lies between two figures.
func (c *canvas) area(upper, lower []float64, height int, most float64) string {
	above := c.points(func(i int) float64 { return upper[i] }, height, most)
	below := c.points(func(i int) float64 { return lower[i] }, height, most)
	slices.Reverse(below)
	return pathOf(append(above, below...)) + "Z"
}

type point struct{ x, y float64 }

// pathOf goes from point to point.
func pathOf(points []point) string {
	var b strings.Builder
	for i, p := range points {
		x, y := number(p.x), number(p.y)
		switch {
		case i == 0:
			fmt.Fprintf(&b, "M%s %s", x, y)
		case p == points[i-1]:
		case x == number(points[i-1].x):
			fmt.Fprintf(&b, "V%s", y)
		case y == number(points[i-1].y):
			fmt.Fprintf(&b, "H%s", x)
		default:
			fmt.Fprintf(&b, "L%s %s", x, y)
		}
	}
	return b.String()
}

func number(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", f), "0"), ".")
}

// bars is a histogram. All have the same buckets, so that they can be compared.
type bars struct {
	Title, Help string
	By          string // whose the longest was
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
