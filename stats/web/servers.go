package web

import (
	"fmt"
	"slices"
	"time"

	"github.com/managedpg/managedpg/failover"
)

// Servers are where a pool leads.
type Servers struct {
	Endpoints []endpointView
	Events    []eventView
	Unused    bool // no connection was opened yet, and no probe made
}

type endpointView struct {
	failover.EndpointHealth
	Lag        string // how far its replay is behind
	Behind     *chart // and was; nil of a primary
	Current    bool
	Since      string // when it came into use, if it wasn't from the start
	Level      string
	Known      string // its state and what was last known of its role
	Checked    string // how long ago
	Response   string
	Rate       string
	Ticks      []tick // the last probes
	TicksWidth int
}

type tick struct {
	X     int
	Class string
	Title string
}

type eventView struct {
	failover.Event
	Level, Time, Ago, Outage string
	Why                      string // its reason in few words
}

func (v *Servers) fill(in *situation, window time.Duration) {
	history := in.status.History
	for i := range in.health.Endpoints {
		e := endpoint(&in.health.Endpoints[i], in.status.Current, in.now)
		if n := len(history); n > 0 && e.Current && history[n-1].To == in.status.Current {
			e.Since = clockTime(in.now, history[n-1].At)
		}
		if behind := lagChart(in.lags[e.Endpoint], in.now, window); behind != nil && (len(behind.Areas) > 0 || e.Role == failover.ReadOnly) {
			e.Behind = behind
		}
		v.Endpoints = append(v.Endpoints, e)
	}
	for _, e := range slices.Backward(history) {
		level := "good"
		if e.Kind == failover.Failover {
			level = "warn"
		}
		v.Events = append(v.Events, eventView{e, level, clockTime(in.now, e.At), ago(in.now, e.At), short(e.Duration), plain(e.Reason)})
	}
}

func endpoint(h *failover.EndpointHealth, current string, now time.Time) endpointView {
	e := endpointView{EndpointHealth: *h, Current: h.Endpoint == current, Level: "warn", Known: string(h.State), Checked: "not probed yet",
		Response: "-", Rate: "-", Lag: short(h.ReplicationLag)}
	switch h.State {
	case failover.Up:
		e.Level = "good"
	case failover.Down, failover.Misconfigured:
		e.Level = "bad"
	}
	if h.Role != failover.RoleUnknown {
		if h.State == failover.Up {
			e.Known += ", " + string(h.Role)
		} else {
			e.Known += ", last seen " + string(h.Role)
		}
	}
	switch {
	case !h.LastCheck.IsZero():
		e.Checked = "probed " + ago(now, h.LastCheck)
	case h.State != failover.Unknown:
		e.Checked = "not probed yet: seen by a connection"
	}
	if h.TotalChecks > 0 {
		e.Rate = fmt.Sprintf("%.0f %%", h.SuccessRate)
	}
	if h.ResponseTime > 0 {
		e.Response = short(h.ResponseTime)
	}
	for i, c := range h.History {
		t := tick{X: 5 * i, Class: "good", Title: ago(now, c.At) + ": " + short(c.ResponseTime)}
		if !c.OK {
			t.Class, t.Title = "bad", ago(now, c.At)+": "+c.Error
		}
		e.Ticks = append(e.Ticks, t)
	}
	e.TicksWidth = 5 * len(e.Ticks)
	return e
}
