// Package ops checks ../../ops, the alert rules and the dashboard, with Prometheus' own parser and engine, and against the
// metrics that are published.
package ops

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/managedpg/managedpg/stats/promstats"
)

const (
	alertsFile    = "../../ops/alerts.yml"
	testsFile     = "../../ops/alerts_test.yml"
	dashboardFile = "../../ops/grafana.json"
)

func alerts(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(alertsFile, false, model.UTF8Validation)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var all []rulefmt.Rule
	for _, g := range groups.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// published are the names of the series that promstats publishes, those of histograms included.
func published() []string {
	ch := make(chan *prometheus.Desc, 100)
	promstats.NewCollector().Describe(ch)
	close(ch)
	var all []string
	for d := range ch {
		name := regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(d.String())[1]
		all = append(all, name, name+"_bucket", name+"_sum", name+"_count")
	}
	return all
}

// checkExpression parses an expression, and looks whether it asks for what is published, by labels that are.
func checkExpression(t *testing.T, of, expression string) {
	t.Helper()
	expr, err := parser.ParseExpr(expression)
	if err != nil {
		t.Errorf("%s: %v", of, err)
		return
	}
	names, known := published(), []string{"pool", "endpoint", "state", "reason", "code", "le", "job", "instance"}
	check := func(label string) {
		if !slices.Contains(known, label) {
			t.Errorf("%s: there is no label %s", of, label)
		}
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			if !slices.Contains(names, n.Name) {
				t.Errorf("%s: %s isn't published", of, n.Name)
			}
			for _, m := range n.LabelMatchers {
				if m.Name != model.MetricNameLabel {
					check(m.Name)
				}
			}
		case *parser.AggregateExpr:
			for _, label := range n.Grouping {
				check(label)
			}
		}
		return nil
	})
}

func TestAlerts(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range alerts(t) {
		if r.Alert == "" || seen[r.Alert] {
			t.Errorf("alert %q: without a name of its own", r.Alert)
		}
		seen[r.Alert] = true
		checkExpression(t, r.Alert, r.Expr)
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
		}
		for _, a := range []string{"summary", "question", "action"} {
			if r.Annotations[a] == "" {
				t.Errorf("%s has no %s", r.Alert, a)
			}
		}
		if !strings.HasSuffix(r.Annotations["question"], "?") {
			t.Errorf("%s: %q is no question", r.Alert, r.Annotations["question"])
		}
		// The labels that the summary names are those of the alert.
		identity := func(v any) any { return v }
		summary, err := template.New("").Funcs(template.FuncMap{"humanize": identity, "humanizeDuration": identity, "humanizePercentage": identity}).
			Parse("{{$labels := .Labels}}{{$value := .Value}}" + r.Annotations["summary"])
		if err != nil {
			t.Errorf("%s: %v", r.Alert, err)
			continue
		}
		var text strings.Builder
		if err := summary.Option("missingkey=error").Execute(&text, map[string]any{"Value": 1.0,
			"Labels": map[string]string{"pool": "shop", "instance": "a:80", "endpoint": "db1"}}); err != nil {
			t.Errorf("%s: %v", r.Alert, err)
		}
	}
}

// testFile is what promtool test rules reads, as far as alerts_test.yml uses it.
type testFile struct {
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []struct {
		Name        string         `yaml:"name"`
		Interval    model.Duration `yaml:"interval"`
		InputSeries []struct {
			Series string `yaml:"series"`
			Values string `yaml:"values"`
		} `yaml:"input_series"`
		PromqlExprTest []struct {
			Expr       string         `yaml:"expr"`
			EvalTime   model.Duration `yaml:"eval_time"`
			ExpSamples []struct {
				Labels string  `yaml:"labels"`
				Value  float64 `yaml:"value"`
			} `yaml:"exp_samples"`
		} `yaml:"promql_expr_test"`
	} `yaml:"tests"`
}

// TestRules runs alerts_test.yml. Each alert is tested both silent and firing.
func TestRules(t *testing.T) {
	text, err := os.ReadFile(testsFile)
	if err != nil {
		t.Fatal(err)
	}
	var file testFile
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	rules := alerts(t)
	fired := map[string]bool{}
	for _, test := range file.Tests {
		t.Run(test.Name, func(t *testing.T) {
			var input memory
			for _, s := range test.InputSeries {
				if err := input.add(s.Series+" "+s.Values, time.Duration(test.Interval)); err != nil {
					t.Fatal(err)
				}
			}
			for _, e := range test.PromqlExprTest {
				at := time.Duration(e.EvalTime)
				got, err := firing(rules, &input, time.Duration(file.EvaluationInterval), at, e.Expr)
				if err != nil {
					t.Fatal(err)
				}
				var want []string
				for _, s := range e.ExpSamples {
					l, err := parser.ParseMetric(s.Labels)
					if err != nil || s.Value != 1 {
						t.Fatalf("%s %v: %v", s.Labels, s.Value, err)
					}
					want = append(want, l.String())
					fired[l.Get("alertname")] = true
				}
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("%s at %v: %q, want %q", e.Expr, at, got, want)
				}
			}
		})
	}
	for _, r := range rules {
		if !fired[r.Alert] {
			t.Errorf("no test has %s fire", r.Alert)
		}
		if n := len(regexp.MustCompile(`expr: ALERTS\{alertname="`+r.Alert+`"`).FindAll(text, -1)); n == 0 {
			t.Errorf("%s isn't tested", r.Alert)
		}
	}
}

func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	type target struct{ Expr, LegendFormat string }
	var dashboard struct {
		Title, UID  string
		Templating  struct{ List []struct{ Name string } }
		Annotations struct{ List []struct{ Expr string } }
		Panels      []struct {
			ID                       int
			Type, Title, Description string
			GridPos                  struct{ X, Y, W, H int }
			Targets                  []target
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	// Grafana puts values in the place of these before it asks Prometheus.
	variables := strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$instance", ".*", "$pool", ".*")
	for _, v := range dashboard.Templating.List {
		if !slices.Contains([]string{"datasource", "job", "instance", "pool"}, v.Name) {
			t.Errorf("a variable %s", v.Name)
		}
	}
	for _, a := range dashboard.Annotations.List {
		checkExpression(t, "annotation", variables.Replace(a.Expr))
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	var asked strings.Builder
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("%s: id %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies on %q, or beyond the right edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if !strings.Contains(p.Description, "?") || len(p.Targets) == 0 {
			t.Errorf("%s: it asks no question, or nobody", p.Title)
		}
		for _, target := range p.Targets {
			checkExpression(t, p.Title, variables.Replace(target.Expr))
			asked.WriteString(target.Expr)
			for _, label := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if expr := variables.Replace(target.Expr); strings.Contains(expr, " by (") && !regexp.MustCompile(` by \([^)]*\b`+label[1]+`\b`).MatchString(expr) {
					t.Errorf("%s: the legend's %s is not in the result of %s", p.Title, label[1], expr)
				}
			}
		}
	}
	if len(ids) < 20 {
		t.Errorf("%d panels only", len(ids))
	}
}
