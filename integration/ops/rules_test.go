package ops

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// memory holds time series for Prometheus' engine.
type memory struct{ series []storage.Series }

type sample struct {
	t int64
	v float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.v }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

// add takes a series as promtool's tests write it.
func (m *memory) add(description string, interval time.Duration) error {
	lset, values, err := parser.ParseSeriesDesc(description)
	if err != nil {
		return fmt.Errorf("%s: %w", description, err)
	}
	var samples []chunks.Sample
	for i, v := range values {
		if !v.Omitted {
			samples = append(samples, sample{int64(i) * interval.Milliseconds(), v.Value})
		}
	}
	m.series = append(m.series, storage.NewListSeries(lset, samples))
	return nil
}

// Querier makes memory a storage.Queryable.
func (m *memory) Querier(int64, int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		set := &seriesSet{at: -1}
		for _, s := range m.series {
			if matches(s.Labels(), matchers) {
				set.series = append(set.series, s)
			}
		}
		slices.SortFunc(set.series, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
		return set
	}}, nil
}

func matches(l labels.Labels, matchers []*labels.Matcher) bool {
	return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(l.Get(m.Name)) })
}

type seriesSet struct {
	series []storage.Series
	at     int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// firing evaluates the rules every interval until at, and returns the series ALERTS that the selector chooses then, sorted.
func firing(rules []rulefmt.Rule, input *memory, interval, at time.Duration, selector string) ([]string, error) {
	expr, err := parser.ParseExpr(selector)
	if err != nil {
		return nil, err
	}
	wanted, ok := expr.(*parser.VectorSelector)
	if !ok || wanted.Name != "ALERTS" {
		return nil, fmt.Errorf("%s doesn't select ALERTS", selector)
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 100_000, Timeout: time.Minute})
	defer engine.Close()
	var found []string
	for _, r := range rules {
		alert := labels.FromStrings(model.MetricNameLabel, "ALERTS", "alertname", r.Alert, "alertstate", "firing")
		if !matches(alert, wanted.LabelMatchers) {
			continue
		}
		since := map[string]time.Duration{} // when each series began to be there
		for now := time.Duration(0); now <= at; now += interval {
			query, err := engine.NewInstantQuery(context.Background(), input, nil, r.Expr, time.UnixMilli(now.Milliseconds()))
			if err != nil {
				return nil, err
			}
			vector, err := query.Exec(context.Background()).Vector()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.Alert, err)
			}
			active := map[string]time.Duration{}
			for _, s := range vector {
				b := labels.NewBuilder(s.Metric)
				for name, value := range r.Labels {
					b.Set(name, value)
				}
				alert.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
				key := b.Labels().String()
				active[key] = now
				if first, ok := since[key]; ok {
					active[key] = first
				}
				if now+interval > at && now-active[key] >= time.Duration(r.For) {
					found = append(found, key)
				}
			}
			since = active
			query.Close()
		}
	}
	slices.Sort(found)
	return found, nil
}
