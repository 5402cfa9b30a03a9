package web

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"time"
)

// started is when the program did, but for what came before this package.
var started = time.Now()

// process says which program of which host the page is of.
func process(now time.Time) []string {
	host, _ := os.Hostname()
	all := []string{cmp.Or(host, "unknown host"), fmt.Sprintf("pid %d", os.Getpid()), "up " + short(now.Sub(started).Round(time.Second))}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Path != "" {
			all = append(all, path.Base(info.Path)+" "+cmp.Or(info.Main.Version, "(devel)"))
		}
		if v := moduleVersion(info); v != "" {
			all = append(all, "managedpg "+v)
		}
	}
	return append(all, runtime.Version(), "times in "+now.Format("MST (-07:00)"))
}

// moduleVersion is that of managedpg in the program.
func moduleVersion(info *debug.BuildInfo) string {
	for _, m := range info.Deps {
		if m.Path == "github.com/managedpg/managedpg" {
			return m.Version
		}
	}
	return ""
}
