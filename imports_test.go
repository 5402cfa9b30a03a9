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
		module + "/failover":          {"github.com/jackc", "github.com/lib", module + "/conn", module + "/driver"},
		module + "/conn":              {module + "/failover", module + "/driver"},
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

// Which base driver a connection has is known to internal/base alone.
func TestImportsOfBaseDrivers(t *testing.T) {
	const module = "github.com/managedpg/managedpg"
	for _, of := range []string{"/conn", "/driver", "/failover", "/leak", "/stats", "/internal/pool", "/internal/resolve", "/internal/wire"} {
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
