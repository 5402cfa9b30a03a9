package expvarstats_test

import (
	"expvar"
	"fmt"

	"github.com/managedpg/managedpg/stats/expvarstats"
)

// Importing the package publishes the variable; /debug/vars has it.
func Example() {
	fmt.Println(expvarstats.Name, expvar.Get(expvarstats.Name))
	// Output: managedpg {}
}
