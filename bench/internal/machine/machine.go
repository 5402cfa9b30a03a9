// Package machine says where figures come from: the head of a report.
package machine

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Head is the head of a report: machine, versions of what was measured, command, date.
func Head(title, command string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", title)
	fmt.Fprintf(&b, "- machine: %s, %d cores, %s/%s\n", processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	fmt.Fprintf(&b, "- %s%s\n", runtime.Version(), measured())
	fmt.Fprintf(&b, "- command: %s\n", strings.Join(append([]string{command}, os.Args[1:]...), " "))
	fmt.Fprintf(&b, "- date: %s\n", time.Now().UTC().Format("2006-01-02 15:04 MST"))
	return b.String()
}

// measured are the base drivers and the peers that the program holds.
func measured() (list string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		switch m.Path {
		case "github.com/jackc/pgx/v5", "github.com/lib/pq", "github.com/ngrok/sqlmw", "github.com/XSAM/otelsql":
			list += ", " + strings.TrimPrefix(m.Path, "github.com/") + " " + m.Version
		}
	}
	return list
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
