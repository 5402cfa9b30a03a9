package managedpg

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/managedpg/managedpg/internal/dsn"
)

// withSecrets has a password in every place that can hold one.
const withSecrets = "postgres://ann:sekret@db,db2/app?sslpassword=sekret&passfile=/none&myapp.token=sekret&options=-c%20a.b%3Dsekret" +
	"&pool_size=5&application_name=shop&failover_urls=postgres%3A%2F%2Fann%3Asekret%40b%2Fapp%3Fpassword%3Dsekret" +
	"&failover_urls=host%3Dc%20password%3Dsekret"

func TestConfigShowsNoPassword(t *testing.T) {
	setenv(t, nil)
	c, err := ParseDSN(withSecrets)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb+"\n", c)
		fmt.Fprintf(&b, verb+"\n", *c)
		fmt.Fprintf(&b, verb+"\n", []any{c, *c})
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("pool", "config", c, "value", *c)
	}
	if strings.Contains(b.String(), "sekret") {
		t.Errorf("it shows a password:\n%s", &b)
	}
	const want = "user=ann password=xxxxx host=db,db2 port=5432,5432 dbname=app sslpassword=xxxxx passfile=/none myapp.token=xxxxx options=xxxxx " +
		"application_name=shop failover_urls='user=ann password=xxxxx host=b dbname=app' failover_urls='host=c password=xxxxx' " +
		"pool_name=db:5432/app pool_size=5 health_check_interval=5s target_session_attrs=read-write"
	if got := c.String(); got != want {
		t.Errorf("String\n%s\nwant\n%s", got, want)
	}
	if endpoints, _ := c.endpoints(); strings.Contains(fmt.Sprint(endpoints[0].Name), "sekret") {
		t.Errorf("an endpoint's name shows the password: %s", endpoints[0].Name)
	}
	c.FailoverURLs = []string{"postgres://ann:sekret@pass@b/app", "sekret"}
	if s := c.String(); strings.Contains(s, "sekret") {
		t.Errorf("it shows the password of a broken failover URL: %s", s)
	}
	if err := c.Validate(); err == nil || strings.Contains(err.Error(), "sekret") {
		t.Errorf("Validate: %v", err)
	}
}

func TestDSNHoldsInAnyEnvironment(t *testing.T) {
	setenv(t, nil)
	c, err := ParseDSN("host=db dbname=app")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if v := k.get(c); v == "true" {
			t.Setenv(k.env(), "false")
		} else if v == "false" {
			t.Setenv(k.env(), "true")
		}
	}
	for name, value := range (env{"DB_POOL_SIZE": "5", "DB_MAX_OVERFLOW": "7", "DB_LEAK_THRESHOLD": "1s", "DB_POOL_NAME": "x",
		"DB_BASE_DRIVER": "pq", "DB_TARGET_SESSION_ATTRS": "standby", "PGCONNECT_TIMEOUT": "9"}) {
		t.Setenv(name, value)
	}
	checkRoundTrip(t, c)
}

func TestEveryKeyHasAField(t *testing.T) {
	fields := reflect.TypeFor[Config]()
	for _, k := range keys {
		plain := strings.ReplaceAll(k.name, "_", "")
		if _, ok := fields.FieldByNameFunc(func(f string) bool { return strings.EqualFold(f, plain) }); !ok {
			t.Errorf("%s has no field", k.name)
		}
		var c Config
		if !k.list && k.name != "pool_name" && (!k.set(&c, k.def) || k.get(&c) != k.def) {
			t.Errorf("%s: its default %q reads back as %q", k.name, k.def, k.get(&c))
		}
		if dsn.Known(k.name) {
			t.Errorf("%s is in baseKeys too", k.name)
		}
	}
}

func TestValidate(t *testing.T) {
	setenv(t, nil)
	for name, test := range map[string]struct {
		change func(*Config)
		want   string // empty: valid
	}{
		"as parsed":            {func(c *Config) {}, ""},
		"a pool":               {func(c *Config) { c.PoolSize = 5 }, ""},
		"a pool of the user's": {func(c *Config) { c.PoolSize, c.MaxOverflow, c.PoolMinIdle, c.PoolTimeout = 5, -1, 5, -1 }, ""},
		"negative pool":        {func(c *Config) { c.PoolSize = -1 }, "pool_size=-1: want"},
		"overflow alone":       {func(c *Config) { c.MaxOverflow = 3 }, "max_overflow=3: want pool_size with it"},
		"too many idle":        {func(c *Config) { c.PoolSize, c.PoolMinIdle = 5, 6 }, "pool_min_idle=6: want at most pool_size (5)"},
		"negative duration":    {func(c *Config) { c.PoolRecycle = -time.Second }, "pool_recycle=-1s: want"},
		"no threshold":         {func(c *Config) { c.LeakThreshold = 0 }, "leak_threshold=0: want"},
		"reclaim undetected":   {func(c *Config) { c.LeakReclaimAfter, c.LeakDetection = time.Hour, false }, "leak_reclaim_after=1h: want leak_detection=true"},
		"unknown reset":        {func(c *Config) { c.PoolReset = "all" }, "pool_reset=all: want none or discard_all"},
		"other base":           {func(c *Config) { c.BaseDriver = "pq" }, ""},
		"base unknown":         {func(c *Config) { c.BaseDriver = "odbc" }, "base_driver=odbc: want pgx or pq"},
		"pgx's things for pq": {func(c *Config) {
			c.BaseDriver, c.PgxConfig = "pq", func(*pgx.ConnConfig) error { return nil }
		}, "PgxConfig and PgxOptions are for base_driver=pgx"},
		"a failover URL":           {func(c *Config) { c.FailoverURLs = []string{"postgres://b/app"} }, ""},
		"a bad failover URL":       {func(c *Config) { c.FailoverURLs = []string{"postgres://b:x/app"} }, "failover_urls, DSN 1: a port in the URL"},
		"a nil endpoint":           {func(c *Config) { c.Endpoints = []driver.Connector{nil} }, "Endpoints[0] is nil"},
		"a literal":                {func(c *Config) { *c = Config{PoolSize: 5} }, "start from ParseDSN"},
		"a literal with endpoints": {func(c *Config) { *c = Config{PoolSize: 5, Endpoints: []driver.Connector{noConnector{}}} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ParseDSN("host=db dbname=app")
			if err != nil {
				t.Fatal(err)
			}
			test.change(c)
			err = c.Validate()
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestResolvedFillsALiteral(t *testing.T) {
	c, _, err := (&Config{PoolSize: 5, Endpoints: []driver.Connector{noConnector{}, noConnector{}}}).resolved()
	if err != nil {
		t.Fatal(err)
	}
	if c.BaseDriver != "pgx" || c.HealthCheckTimeout != 5*time.Second || c.FailbackAfter != 3 || c.TargetSessionAttrs != "read-write" ||
		c.HealthCheckInterval != 5*time.Second || c.PoolRecycle != 0 || c.PoolPrePing || c.PoolSize != 5 {
		t.Errorf("%s", c.DSN())
	}
}

type noConnector struct{}

func (noConnector) Connect(context.Context) (driver.Conn, error) {
	return nil, errors.New("no connection")
}
func (noConnector) Driver() driver.Driver { return nil }
