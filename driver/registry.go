package driver

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// registry holds the open pools of the program by name; nil for a name whose pool is being made.
var registry struct {
	mu    sync.Mutex
	pools map[string]*Connector
}

// validUTF8 is for names, which go into metrics: an invalid label value would fail a whole scrape.
func validUTF8(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// reserve finds a name that no other open pool has: the given one, or that with #2, #3, ... behind it.
func reserve(name string) string {
	name = validUTF8(name)
	registry.mu.Lock()
	defer registry.mu.Unlock()
	if registry.pools == nil {
		registry.pools = make(map[string]*Connector)
	}
	free := name
	for n := 2; ; n++ {
		if _, taken := registry.pools[free]; !taken {
			registry.pools[free] = nil
			return free
		}
		free = fmt.Sprintf("%s#%d", name, n)
	}
}

// register makes a pool known under the name that was reserved for it. From then on others may ask for its figures.
func register(c *Connector) {
	registry.mu.Lock()
	defer registry.mu.Unlock()
	registry.pools[c.name] = c
}

func unregister(c *Connector) {
	registry.mu.Lock()
	defer registry.mu.Unlock()
	if registry.pools[c.name] == c {
		delete(registry.pools, c.name)
	}
}

// Connectors are the open pools, by name.
func Connectors() []*Connector {
	registry.mu.Lock()
	defer registry.mu.Unlock()
	var all []*Connector
	for _, c := range registry.pools {
		if c != nil {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *Connector) int { return cmp.Compare(a.name, b.name) })
	return all
}
