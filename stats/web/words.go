package web

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// shortCaller is "file.go:12 function" of "/a/b/file.go:12 example.com/x/y.function".
func shortCaller(caller string) string {
	if caller == "" {
		return "unknown caller"
	}
	file, function, _ := strings.Cut(caller, " ")
	return path.Base(file) + " " + path.Base(function)
}

func labels(m map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+m[k])
	}
	return strings.Join(all, ", ")
}

// short is a duration in three figures or so.
func short(d time.Duration) string {
	switch {
	case d >= time.Hour:
		return trimZeros(d.Round(time.Minute).String())
	case d >= time.Minute:
		return trimZeros(d.Round(time.Second).String())
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	for unit := time.Second; unit > 1; unit /= 1000 {
		switch {
		case d >= 100*unit:
			return d.Round(unit).String()
		case d >= 10*unit:
			return d.Round(unit / 10).String()
		case d >= unit:
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}

// trimZeros is "5m" of "5m0s", and "2h" of "2h0m0s".
func trimZeros(s string) string {
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
}

func ago(now, at time.Time) string { return short(max(0, now.Sub(at)).Round(time.Second)) + " ago" }

// clockTime is a time of day, with the day if it isn't today's.
func clockTime(now, at time.Time) string {
	at = at.In(now.Location())
	if now.Format(time.DateOnly) == at.Format(time.DateOnly) {
		return at.Format(time.TimeOnly)
	}
	return at.Format(time.DateTime)
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
