package conn

import (
	"github.com/managedpg/managedpg/stats"
)

// Fill writes what the queue and the dials are doing into a snapshot of a governed pool.
func (p *Pool) Fill(s *stats.Snapshot) {
	if !p.governed {
		return
	}
	f, since := p.lending.Figures(), p.reset.Load()
	s.Waiting, s.Dialling = int64(f.Waiting), int64(f.Dialling)
	s.QueueStanding, s.Paused = f.Standing, f.Paused
	s.NewestFirst, s.OrphanedDials = f.NewestFirst-since.NewestFirst, f.Orphaned-since.Orphaned
}

// FillTotals is Fill without regard to ResetStats.
func (p *Pool) FillTotals(s *stats.Snapshot) {
	p.Fill(s)
	since := p.reset.Load()
	s.NewestFirst += since.NewestFirst
	s.OrphanedDials += since.Orphaned
}

// ResetStats makes the counts start anew.
func (p *Pool) ResetStats() {
	p.Recorder.Reset()
	f := p.lending.Figures()
	p.reset.Store(&f)
}
