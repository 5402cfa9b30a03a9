package pool

import "fmt"

// Check says what is wrong with the pool's books at this moment, if anything.
func (p *Pool[T]) Check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, own, slow := 0, 0, 0
	for w := p.queue.oldest; w != nil; w = w.newer {
		n++
		own += w.dials
	}
	for _, d := range p.supply.dials {
		if !d.asker.gone {
			own--
		}
		if d.slow {
			slow++
		}
	}
	switch {
	case n != p.queue.len:
		return fmt.Errorf("%d wait, and %d are counted", n, p.queue.len)
	case p.paused.IsZero() && !p.closed && n > 0 && len(p.free) > 0:
		return fmt.Errorf("%d wait beside %d free ones", n, len(p.free))
	case p.lent < 0, p.supply.underWay() < 0, p.places < p.lent+len(p.free)+p.supply.underWay():
		return fmt.Errorf("%d places, %d lent, %d free, %d dials", p.places, p.lent, len(p.free), p.supply.underWay())
	case len(p.free) > p.size:
		return fmt.Errorf("%d are free, %d are kept", len(p.free), p.size)
	case own != 0, slow != p.supply.slow:
		return fmt.Errorf("%d more dials counted by those who wait than there are; %d slow ones of %d counted", own, slow, p.supply.slow)
	case n == 0 && !p.queue.stands.IsZero():
		return fmt.Errorf("an empty queue stands")
	}
	return nil
}

// Places is how many things there are, those being dialled and closed included.
func (p *Pool[T]) Places() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.places
}
