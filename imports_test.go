package managedpg_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A program pays only for what it asks for: managedpg alone links no web server and no metrics library, and the metrics of
// OpenTelemetry don't link its SDK. Imports run one way, and what knows no driver stays so.
func TestImports(t *testing.T) {
	const module = "github.com/managedpg/managedpg"
	for of, never := range map[string][]string{
		module: {"net/http", "expvar", "html/template", "github.com/prometheus", "go.opentelemetry.io",
			module + "/stats/", module + "/internal/pgtest"},
		// What a program names of conn and failover needs no machinery.
		module + "/conn":              {"github.com/jackc", "github.com/lib", module + "/internal/conn", module + "/internal/failover", module + "/failover", module + "/driver"},
		module + "/failover":          {"github.com/jackc", "github.com/lib", module + "/internal/conn", module + "/internal/failover", module + "/conn", module + "/driver"},
		module + "/internal/conn":     {module + "/internal/failover", module + "/failover", module + "/driver"},
		module + "/internal/failover": {"github.com/jackc", "github.com/lib", module + "/internal/conn", module + "/conn", module + "/driver"},
		module + "/internal/base":     {module + "/stats", module + "/leak", module + "/conn", module + "/failover", module + "/driver"},
		module + "/internal/resolve":  {module + "/stats", module + "/leak", module + "/conn", module + "/failover", module + "/driver"},
		module + "/internal/wire":     {"database/sql", "github.com/jackc", "github.com/lib", module + "/internal/base"},
		module + "/leak":              {"database/sql", module + "/stats", module + "/conn", module + "/failover", module + "/driver"},
		module + "/stats":             {"database/sql", module + "/leak", module + "/conn", module + "/failover", module + "/driver"},
		module + "/stats/otelstats":   {"net/http", "go.opentelemetry.io/otel/sdk", "github.com/prometheus"},
		module + "/stats/promstats":   {"go.opentelemetry.io", module + "/stats/web"},
		module + "/stats/web":         {"go.opentelemetry.io", "github.com/prometheus"},
		module + "/stats/expvarstats": {"go.opentelemetry.io", "github.com/prometheus", "html/template"},
	} {
		out, err := exec.Command("go", "list", "-deps", of).CombinedOutput()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, out)
		}
		for _, pkg := range strings.Fields(string(out)) {
			if slices.ContainsFunc(never, func(n string) bool {
				return pkg == n || strings.HasPrefix(pkg, strings.TrimSuffix(n, "/")+"/")
			}) && pkg != of {
				t.Errorf("%s links %s", of, pkg)
			}
		}
	}
}

// The rooms of internal stand on their own: only internal/conn and internal/failover know public packages, which are those of their names,
// and leak and stats.
func TestImportsOfRooms(t *testing.T) {
	const module = "github.com/managedpg/managedpg"
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./internal/...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	may := map[string][]string{
		module + "/internal/conn":     {module + "/conn", module + "/leak", module + "/stats"},
		module + "/internal/failover": {module + "/failover"},
	}
	for line := range strings.Lines(string(out)) {
		room, imports := strings.Fields(line)[0], strings.Fields(line)[1:]
		if strings.HasPrefix(room, module+"/internal/e2e") || room == module+"/internal/sim" {
			continue // tests, which name what a program names
		}
		for _, pkg := range imports {
			if rest, ours := strings.CutPrefix(pkg, module); ours && !strings.HasPrefix(rest, "/internal/") && !slices.Contains(may[room], pkg) {
				t.Errorf("%s imports %s", room, pkg)
			}
		}
	}
}

// Which base driver a connection has is known to internal/base alone.
func TestImportsOfBaseDrivers(t *testing.T) {
	const module = "github.com/managedpg/managedpg"
	for _, of := range []string{"/internal/conn", "/driver", "/internal/failover", "/leak", "/stats", "/internal/pool", "/internal/resolve", "/internal/wire"} {
		out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, module+of).CombinedOutput()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, out)
		}
		for _, pkg := range strings.Fields(string(out)) {
			if strings.HasPrefix(pkg, "github.com/jackc/") || strings.HasPrefix(pkg, "github.com/lib/pq") {
				t.Errorf("%s imports %s", of, pkg)
			}
		}
	}
}
