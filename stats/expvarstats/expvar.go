// Package expvarstats publishes the figures of all open pools as the variable managedpg of package expvar, and so at
// /debug/vars: an object with a [stats.Snapshot] for each pool, by its name. Import it for that:
//
//	import _ "github.com/managedpg/managedpg/stats/expvarstats"
//
// Package stats/web imports it too. Mind that package expvar itself adds /debug/vars to http.DefaultServeMux.
package expvarstats

import (
	"expvar"

	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/stats"
)

// Name is that of the variable.
const Name = "managedpg"

func init() {
	if expvar.Get(Name) == nil { // Publish would end the program; the other one may be a second, vendored copy of this
		expvar.Publish(Name, expvar.Func(pools))
	}
}

func pools() any {
	all := make(map[string]stats.Snapshot)
	for _, c := range driver.Connectors() {
		all[c.Name()] = c.Stats()
	}
	return all
}
