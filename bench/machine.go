package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// machine says where the figures come from: a list for the head of the report.
func machine() string {
	var b strings.Builder
	fmt.Fprintf(&b, "- machine: %s, %d cores, %s/%s\n", processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	fmt.Fprintf(&b, "- %s", runtime.Version())
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			switch m.Path {
			case "github.com/jackc/pgx/v5", "github.com/lib/pq":
				fmt.Fprintf(&b, ", %s %s", strings.TrimPrefix(m.Path, "github.com/"), m.Version)
			}
		}
	}
	return b.String()
}

// processor is its name, where the system tells it in /proc.
func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}
