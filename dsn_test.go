package managedpg

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// setenv gives the test an environment of its own: nothing that a DSN depends on but what env says.
func setenv(t testing.TB, env map[string]string) {
	t.Helper()
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "DB_") || strings.HasPrefix(name, "DATABASE_") {
			t.Setenv(name, "") // so that it is restored
			os.Unsetenv(name)
		}
	}
	t.Setenv("HOME", t.TempDir())
	for name, value := range env {
		t.Setenv(name, value)
	}
}

type env = map[string]string

const pgxOnly, pqOnly = "pgx", "pq"

func TestParseDSN(t *testing.T) {
	services := filepath.Join(t.TempDir(), "services")
	write(t, services, `
[one]
host=db1
port=6000
dbname=app
user=ann
connect_timeout=7
target_session_attrs=standby

[two]
host=db1,db2
port=6000,6001
dbname=app
user=ann
`)
	several := env{"target_session_attrs": "read-write", "health_check_interval": "5s"}

	for _, test := range []struct {
		name      string
		only      string // one base driver; empty: both
		env       env
		dsn       string
		want      env      // by key, as DSN would write it
		endpoints []string // names
		base      []string // what of each endpoint's DSN must be there, "user=ann password=x"
	}{
		{name: "URL", dsn: "postgres://ann:pw@db:5433/app?sslmode=disable",
			endpoints: []string{"db:5433/app"}, base: []string{"user=ann password=pw host=db port=5433 dbname=app sslmode=disable"}},
		{name: "the other scheme", dsn: "postgresql://ann@db/app", endpoints: []string{"db:5432/app"}},
		{name: "key=value", dsn: "host=db port=5433 user=ann password=pw dbname=app",
			endpoints: []string{"db:5433/app"}, base: []string{"host=db port=5433 user=ann password=pw dbname=app"}},
		{name: "no database is the user's", dsn: "host=db user=ann", endpoints: []string{"db:5432/ann"}},
		{name: "defaults", dsn: "host=db dbname=app", want: env{
			"pool_name": "db:5432/app", "pool_size": "none", "max_overflow": "10", "pool_timeout": "30s",
			"pool_recycle": "1h", "pool_idle_timeout": "0", "pool_min_idle": "0", "pool_pre_ping": "true",
			"statement_cache": "128", "pool_reset": "none", "echo_pool": "false", "leak_detection": "true",
			"leak_threshold": "5m", "leak_reclaim_after": "0", "leak_stack_depth": "16", "health_check": "true",
			"health_check_interval": "1m", "health_check_timeout": "5s", "fencing": "true", "failover": "true",
			"failover_timeout": "30s", "failover_retry_attempts": "0", "failover_retry_delay": "1s", "failback": "true",
			"failback_after": "3", "target_session_attrs": "any", "load_balance_hosts": "disable", "max_replication_lag": "0", "standby_reads": "false", "tcp_user_timeout": "0", "connect_timeout": "5s",
			"keepalives": "true", "keepalives_idle": "0", "keepalives_interval": "0", "keepalives_count": "0"}},
		{name: "every key in a URL", dsn: "postgres://ann@db/app?pool_name=orders&pool_size=5&max_overflow=-1&pool_timeout=-1" +
			"&pool_recycle=90&pool_idle_timeout=1.5&pool_min_idle=5&pool_pre_ping=off&statement_cache=0&pool_reset=discard_all" +
			"&echo_pool=on&leak_detection=yes&leak_threshold=1m30s&leak_reclaim_after=.5&leak_stack_depth=0&health_check=0" +
			"&health_check_interval=250ms&health_check_timeout=1us&fencing=no&failover=f&failover_timeout=0" +
			"&failover_retry_attempts=7&failover_retry_delay=0&failback=N&failback_after=1&target_session_attrs=prefer-standby" +
			"&load_balance_hosts=random&max_replication_lag=2&standby_reads=1&tcp_user_timeout=1500&keepalives=0&keepalives_idle=30&keepalives_interval=10s&keepalives_count=3&connect_timeout=0",
			want: env{"pool_name": "orders", "pool_size": "5", "max_overflow": "-1", "pool_timeout": "-1s",
				"pool_recycle": "1m30s", "pool_idle_timeout": "1.5s", "pool_min_idle": "5", "pool_pre_ping": "false",
				"statement_cache": "0", "pool_reset": "discard_all", "echo_pool": "true", "leak_detection": "true",
				"leak_threshold": "1m30s", "leak_reclaim_after": "500ms", "leak_stack_depth": "0", "health_check": "false",
				"health_check_interval": "250ms", "health_check_timeout": "1µs", "fencing": "false", "failover": "false",
				"failover_timeout": "0", "failover_retry_attempts": "7", "failover_retry_delay": "0", "failback": "false",
				"failback_after": "1", "target_session_attrs": "prefer-standby", "load_balance_hosts": "random", "max_replication_lag": "2s", "standby_reads": "true", "tcp_user_timeout": "1.5s",
				"keepalives": "false", "keepalives_idle": "30s", "keepalives_interval": "10s", "keepalives_count": "3",
				"connect_timeout": "0"},
			base: []string{"user=ann host=db dbname=app"}},
		{name: "ours is not the base driver's", dsn: "host=db dbname=app pool_size=5 fencing=off application_name='my app'",
			want: env{"pool_size": "5", "fencing": "false"}, base: []string{"host=db dbname=app application_name='my app'"}},
		{name: "a negative connect_timeout is none, as in libpq", dsn: "host=db connect_timeout=-1", want: env{"connect_timeout": "0"}},
		{name: "the last of a repeated key", dsn: "host=a host=db dbname=app pool_size=5 pool_size=6",
			want: env{"pool_size": "6"}, endpoints: []string{"db:5432/app"}},
		{name: "pool_size=none", dsn: "host=db pool_size=none", env: env{"DB_POOL_SIZE": "5", "DB_MAX_OVERFLOW": "3"},
			want: env{"pool_size": "none", "max_overflow": "10"}},

		{name: "quotes and escapes", dsn: " host = db\tdbname='my app'\nuser=ann password = 'a b\\'c\\\\d' options=a\\ b ",
			endpoints: []string{"db:5432/my app"}, base: []string{`host=db dbname='my app' user=ann password='a b\'c\\d' options='a b'`}},
		{name: "an empty value", dsn: "host=db password='' application_name = '' dbname=app", base: []string{"host=db password='' application_name='' dbname=app"}},
		{name: "a value that ends the DSN", dsn: "dbname=app host=", only: pgxOnly, base: []string{"dbname=app host=''"}},
		{name: "percent-encoding", dsn: "postgres://a%40n:p%2Fw%3A%40%25@d%62/my%20app?application%5Fname=a%26b",
			endpoints: []string{"db:5432/my app"}, base: []string{"user=a@n password=p/w:@% host=db dbname='my app' application_name='a&b'"}},
		{name: "a password with a question mark", dsn: "postgres://ann:a?b#c@db/app", base: []string{"user=ann password='a?b#c' host=db dbname=app"}},
		{name: "a plus is a plus", only: pgxOnly, dsn: "postgres://ann:a+b@db/app?application_name=a+b", base: []string{"user=ann password=a+b host=db dbname=app application_name=a+b"}},
		{name: "in lib/pq's query a plus is a space", only: pqOnly, dsn: "postgres://ann:a+b@db/app?application_name=a+b&options=",
			base: []string{"user=ann password=a+b host=db dbname=app application_name='a b'"}},
		{name: "ssl=true", dsn: "postgres://db/app?ssl=true", base: []string{"host=db dbname=app sslmode=require"}},
		{name: "everything in the query", dsn: "postgres:///?host=db&port=5433&dbname=app&user=ann&password=pw",
			endpoints: []string{"db:5433/app"}, base: []string{"host=db port=5433 dbname=app user=ann password=pw"}},
		{name: "database for dbname", dsn: "host=db database=app", endpoints: []string{"db:5432/app"}},
		{name: "server parameters", dsn: "host=db search_path='a, b' TimeZone=UTC myapp.tenant=7 work_mem=64MB statement_timeout=5s",
			base: []string{"host=db search_path='a, b' TimeZone=UTC myapp.tenant=7 work_mem=64MB statement_timeout=5s"}},
		{name: "pgx's own", only: pgxOnly, dsn: "host=db default_query_exec_mode=exec statement_cache_capacity=9 passfile=/none",
			base: []string{"host=db default_query_exec_mode=exec statement_cache_capacity=9 passfile=/none"}},
		{name: "lib/pq's own", only: pqOnly, dsn: "host=db binary_parameters=yes fallback_application_name=x",
			base: []string{"host=db binary_parameters=yes fallback_application_name=x"}},
		{name: "PGLOADBALANCEHOSTS", dsn: "host=a,b dbname=app target_session_attrs=standby", env: env{"PGLOADBALANCEHOSTS": "random"},
			want: env{"load_balance_hosts": "random", "target_session_attrs": "standby", "health_check_interval": "5s"}, endpoints: []string{"a:5432/app", "b:5432/app"}},
		{name: "load_balance_hosts=disable", dsn: "host=a,b dbname=app load_balance_hosts=disable", want: several,
			endpoints: []string{"a:5432/app", "b:5432/app"}, base: []string{"dbname=app host=a port=5432", "dbname=app host=b port=5432"}},

		{name: "IPv6 in a URL", dsn: "postgres://[::1]:5433,[fe80::1]/app", want: several, endpoints: []string{"[::1]:5433/app", "[fe80::1]:5432/app"}},
		{name: "IPv6 in key=value", dsn: "host=::1,db dbname=app", endpoints: []string{"[::1]:5432/app", "db:5432/app"}},
		{name: "a socket", dsn: "host=/run/postgresql dbname=app", endpoints: []string{"/run/postgresql:5432/app"}},
		{name: "a socket in a URL's query", dsn: "postgres:///app?host=/run/postgresql&port=6000", endpoints: []string{"/run/postgresql:6000/app"}},
		{name: "a socket in a URL's host", dsn: "postgres://%2Frun%2Fpostgresql/app", endpoints: []string{"/run/postgresql:5432/app"}},
		{name: "an abstract socket", dsn: "host=@pg dbname=app", only: pqOnly, endpoints: []string{"@pg:5432/app"}},
		{name: "hosts", dsn: "postgres://ann:pw@a:1,b:2,c/app?pool_size=5", want: several, endpoints: []string{"a:1/app", "b:2/app", "c:5432/app"},
			base: []string{"user=ann password=pw dbname=app host=a port=1", "user=ann password=pw dbname=app host=b port=2", "user=ann password=pw dbname=app host=c port=5432"}},
		{name: "hosts and ports", dsn: "host=a,b port=1,2 dbname=app", endpoints: []string{"a:1/app", "b:2/app"}},
		{name: "one port for all hosts", dsn: "host=a,b port=1 dbname=app", endpoints: []string{"a:1/app", "b:1/app"}},
		{name: "ports left out", dsn: "postgres://a,b/app", env: env{"PGPORT": "1,2,3"}, only: pgxOnly, endpoints: []string{"a:5432/app", "b:5432/app"}},
		{name: "a host twice", dsn: "host=a,a,b dbname=app", endpoints: []string{"a:5432/app", "b:5432/app"}},
		{name: "hostaddr", only: pqOnly, dsn: "host=a,b hostaddr=10.0.0.1,10.0.0.2 dbname=app", endpoints: []string{"a:5432/app", "b:5432/app"},
			base: []string{"dbname=app host=a port=5432 hostaddr=10.0.0.1", "dbname=app host=b port=5432 hostaddr=10.0.0.2"}},

		{name: "failover URLs in a URL", dsn: "postgres://ann:pw@a/app?failover_urls=postgres%3A%2F%2Fann%3Apw%40b%2Fapp%3Fsslmode%3Ddisable&failover_urls=postgres%3A%2F%2Fc%2Cd%2Fapp",
			want: several, endpoints: []string{"a:5432/app", "b:5432/app", "c:5432/app", "d:5432/app"},
			base: []string{"user=ann password=pw host=a dbname=app", "user=ann password=pw host=b dbname=app sslmode=disable", "dbname=app host=c port=5432", "dbname=app host=d port=5432"}},
		{name: "a failover URL not encoded", dsn: "postgres://a/app?failover_urls=postgres://ann:pw@b/app", endpoints: []string{"a:5432/app", "b:5432/app"}},
		{name: "a list of failover URLs", dsn: "host=a dbname=app failover_urls='postgres://b,c/app, postgresql://d/app?sslmode=disable'",
			endpoints: []string{"a:5432/app", "b:5432/app", "c:5432/app", "d:5432/app"}},
		{name: "a failover DSN in key=value", dsn: `host=a dbname=app failover_urls='host=b dbname=\'my app\''`, endpoints: []string{"a:5432/app", "b:5432/my app"}},
		{name: "failover=false", dsn: "host=a,b dbname=app failover=false", endpoints: []string{"a:5432/app"}, want: env{"target_session_attrs": "any", "health_check_interval": "1m"}},
		{name: "same name, other user", dsn: "host=a dbname=app user=x failover_urls=postgres://y@a/app", endpoints: []string{"a:5432/app", "a:5432/app#2"}},
		{name: "what was said beats the default of several", dsn: "host=a,b target_session_attrs=any health_check_interval=60", want: env{"target_session_attrs": "any", "health_check_interval": "1m"}},

		{name: "environment", dsn: "host=db", env: env{"DB_POOL_SIZE": "7", "DB_LEAK_THRESHOLD": "30", "DB_MAX_OVERFLOW": "0", "DB_FAILBACK": "off", "DB_POOL_NAME": "x", "DB_KEEPALIVES": "off"},
			want: env{"pool_size": "7", "leak_threshold": "30s", "max_overflow": "0", "failback": "false", "pool_name": "x", "keepalives": "false"}},
		{name: "the DSN wins over it", dsn: "host=db pool_size=3 leak_threshold=1m", env: env{"DB_POOL_SIZE": "7", "DB_LEAK_THRESHOLD": "30"},
			want: env{"pool_size": "3", "leak_threshold": "1m"}},
		{name: "an empty variable is unset", dsn: "host=db", env: env{"DB_POOL_SIZE": "", "DB_ECHO_POOL": ""}, want: env{"pool_size": "none", "echo_pool": "false"}},
		{name: "libpq's variables count after ours", dsn: "host=db", env: env{"PGCONNECT_TIMEOUT": "9", "PGTARGETSESSIONATTRS": "primary", "DB_TARGET_SESSION_ATTRS": "standby"},
			want: env{"connect_timeout": "9s", "target_session_attrs": "standby"}, base: []string{"host=db"}},
		{name: "libpq's variables", only: pgxOnly, dsn: "", env: env{"PGHOST": "a,b", "PGDATABASE": "app", "PGUSER": "ann"}, want: several, endpoints: []string{"a:5432/app", "b:5432/app"}},
		{name: "DATABASE_URL", dsn: " ", env: env{"DATABASE_URL": "postgres://a/app?pool_size=2", "DATABASE_FAILOVER_URLS": "postgres://b/app,postgres://c/app"},
			want: env{"pool_size": "2", "target_session_attrs": "read-write"}, endpoints: []string{"a:5432/app", "b:5432/app", "c:5432/app"}},
		{name: "DATABASE_URL by value", dsn: "postgres://a/app", env: env{"DATABASE_URL": "postgres://a/app", "DATABASE_FAILOVER_URLS": "postgres://b/app"},
			endpoints: []string{"a:5432/app", "b:5432/app"}},
		{name: "another database", dsn: "postgres://z/app", env: env{"DATABASE_URL": "postgres://a/app", "DATABASE_FAILOVER_URLS": "postgres://b/app"},
			endpoints: []string{"z:5432/app"}},
		{name: "failover_urls wins over DATABASE_FAILOVER_URLS", dsn: "", env: env{"DATABASE_URL": "postgres://a/app?failover_urls=postgres://x/app", "DATABASE_FAILOVER_URLS": "postgres://b/app"},
			endpoints: []string{"a:5432/app", "x:5432/app"}},

		{name: "a service", dsn: "service=one", env: env{"PGSERVICEFILE": services}, endpoints: []string{"db1:6000/app"},
			want: env{"connect_timeout": "7s", "target_session_attrs": "standby"}},
		{name: "the DSN wins over the service", dsn: "service=one connect_timeout=8", env: env{"PGSERVICEFILE": services, "PGCONNECT_TIMEOUT": "9"}, want: env{"connect_timeout": "8s"}},
		{name: "PGSERVICE", dsn: "", env: env{"PGSERVICEFILE": services, "PGSERVICE": "one"}, endpoints: []string{"db1:6000/app"}},
		{name: "servicefile", only: pgxOnly, dsn: "service=two servicefile=" + services, endpoints: []string{"db1:6000/app", "db2:6001/app"}},
	} {
		for _, base := range []string{pgxOnly, pqOnly} {
			if test.only != "" && test.only != base {
				continue
			}
			t.Run(test.name+"/"+base, func(t *testing.T) {
				setenv(t, test.env)
				t.Setenv("DB_BASE_DRIVER", base)
				c, err := ParseDSN(test.dsn)
				if err != nil {
					t.Fatal(err)
				}
				for key, want := range test.want {
					if got := keyNamed(key).get(c); got != want {
						t.Errorf("%s=%s, want %s", key, got, want)
					}
				}
				endpoints, err := c.endpoints()
				if err != nil {
					t.Fatal(err)
				}
				var names []string
				for i, e := range endpoints {
					names = append(names, e.Name)
					if test.base != nil {
						checkBase(t, e.DSN, test.base[i])
					}
				}
				if test.endpoints != nil && !reflect.DeepEqual(names, test.endpoints) {
					t.Errorf("endpoints %q, want %q", names, test.endpoints)
				}
				if test.want["pool_name"] == "" && c.PoolName != "orders" && c.PoolName != names[0] {
					t.Errorf("pool_name=%s, want the first endpoint's, %s", c.PoolName, names[0])
				}
				checkRoundTrip(t, c)
			})
		}
	}
}

// checkBase wants the base driver to get these settings and none besides, but for those that make it leave the timeout
// and the choice of a server to us.
func checkBase(t *testing.T, dsn, want string) {
	t.Helper()
	s := func(dsn string) map[string]string {
		split, err := reader.Split(dsn, false)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]string{}
		for _, own := range split {
			m[own.Key] = own.Value
		}
		return m
	}
	if got, want := s(dsn), s(want+" connect_timeout=0 target_session_attrs=any"); !reflect.DeepEqual(got, want) {
		t.Errorf("the base driver gets %v, want %v", got, want)
	}
}

// checkRoundTrip wants the Config's DSN to give the Config again.
func checkRoundTrip(t *testing.T, c *Config) {
	t.Helper()
	again, err := ParseDSN(c.DSN())
	if err != nil {
		t.Fatalf("its own DSN is refused: %v\n%s", err, c.DSN())
	}
	if !reflect.DeepEqual(again, c) {
		t.Errorf("its own DSN gives another Config:\n%s\n%s", c.DSN(), again.DSN())
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestBadDSN: each fails at once, says what is wrong, and shows nothing of the password, which is "sekret" everywhere.
func TestBadDSN(t *testing.T) {
	services := filepath.Join(t.TempDir(), "services")
	write(t, services, "[ours]\nhost=db\npassword=sekret\npool_size=5\n\n[many]\nhost=a,b\npassword=sekret\n")
	const base = "host=db user=ann password=sekret "

	for _, test := range []struct {
		dsn  string
		env  env
		want string // what the error holds
	}{
		{dsn: base + "pool_size=abc", want: "pool_size=abc: want a whole number from 1 to 10000"},
		{dsn: base + "pool_size=0", want: "pool_size=0: want a whole number from 1"},
		{dsn: base + "pool_size=-1", want: "pool_size=-1: want"},
		{dsn: base + "pool_size=10001", want: "pool_size=10001: want"},
		{dsn: base + "pool_size=5.5", want: "pool_size=5.5: want"},
		{dsn: base + "pool_size=99999999999999999999", want: "pool_size=99999999999999999999: want"},
		{dsn: base + "pool_size=''", want: "pool_size='': want"},
		{dsn: base + "pool_size=5 max_overflow=-2", want: "max_overflow=-2: want a whole number from -1"},
		{dsn: base + "max_overflow=5", want: "max_overflow=5: want pool_size with it"},
		{dsn: base + "max_overflow=10", want: "max_overflow=10: want pool_size with it"},
		{dsn: base + "pool_timeout=5s", want: "pool_timeout=5s: want pool_size with it"},
		{dsn: base + "pool_timeout=30seconds", want: "pool_timeout=30seconds: want a duration such as 30s, or a bare number of seconds"},
		{dsn: base + "pool_idle_timeout=5s", want: "pool_idle_timeout=5s: want pool_size with it"},
		{dsn: base + "pool_min_idle=1", want: "pool_min_idle=1: want pool_size with it"},
		{dsn: base + "statement_cache=1", want: "statement_cache=1: want pool_size with it"},
		{dsn: base + "pool_size=none max_overflow=5", want: "max_overflow=5: want pool_size with it"},
		{dsn: base + "pool_size=5 pool_min_idle=6", want: "pool_min_idle=6: want at most pool_size (5)"},
		{dsn: base + "pool_size=5 pool_min_idle=-1", want: "pool_min_idle=-1: want"},
		{dsn: base + "pool_size=5 statement_cache=-1", want: "statement_cache=-1: want"},
		{dsn: base + "pool_size=5 pool_timeout=soon", want: "pool_timeout=soon: want a duration such as 30s, or a bare number of seconds"},
		{dsn: base + "pool_recycle=-1", want: "pool_recycle=-1: want a duration such as 30s, or a bare number of seconds, not negative"},
		{dsn: base + "pool_recycle=1h30", want: "pool_recycle=1h30: want"},
		{dsn: base + "pool_recycle=1e3", want: "pool_recycle=1e3: want"},
		{dsn: base + "pool_recycle=9999999999999", want: "pool_recycle=9999999999999: want"},
		{dsn: base + "pool_recycle=1..5", want: "pool_recycle=1..5: want"},
		{dsn: base + "pool_pre_ping=maybe", want: "pool_pre_ping=maybe: want true or false"},
		{dsn: base + "pool_reset=all", want: "pool_reset=all: want none or discard_all"},
		{dsn: base + "base_driver=libpq", want: "base_driver=libpq: want pgx or pq"},
		{dsn: base + "pool_name=''", want: "pool_name='': want a name"},
		{dsn: base + "pool_name='a\nb'", want: "pool_name="},
		{dsn: base + "pool_name=" + strings.Repeat("n", 501), want: "pool_name=(xxxxx): want a name without control characters, of 500 bytes at most"},
		{dsn: "host=" + strings.Repeat("a,b,", 50_000) + "a", want: "host: 100001 hosts: want 64 at most"},
		{dsn: base + "failover_urls='" + strings.Repeat("postgres://ann:sekret@db/app,", 100_000) + "'", want: "failover_urls: 100000 DSNs: want 64 at most"},
		{dsn: base + "failover_urls=postgres://" + strings.Repeat("a,b,", 32) + "a", want: "failover_urls, DSN 1: host: 65 hosts: want 64 at most"},
		{dsn: "host=" + strings.Repeat("a,b,", 20) + "a password=sekret failover_urls=postgres://" + strings.Repeat("a,b,", 20) + "a", want: "failover_urls: 82 hosts in all: want 64 at most"},
		{dsn: base + "leak_threshold=0", want: "leak_threshold=0: want"},
		{dsn: base + "leak_reclaim_after=-5m", want: "leak_reclaim_after=-5m: want"},
		{dsn: base + "leak_reclaim_after=10m leak_detection=off", want: "leak_reclaim_after=10m: want leak_detection=true"},
		{dsn: base + "leak_stack_depth=-1", want: "leak_stack_depth=-1: want"},
		{dsn: base + "health_check_interval=0", want: "health_check_interval=0: want"},
		{dsn: base + "health_check_timeout=0s", want: "health_check_timeout=0s: want"},
		{dsn: base + "failover_timeout=-1s", want: "failover_timeout=-1s: want"},
		{dsn: base + "failover_retry_attempts=-1", want: "failover_retry_attempts=-1: want"},
		{dsn: base + "failback_after=0", want: "failback_after=0: want"},
		{dsn: base + "target_session_attrs=master", want: "target_session_attrs=master: want any, read-write,"},
		{dsn: base + "tcp_user_timeout=-1", want: "tcp_user_timeout=-1: want"},
		{dsn: base + "connect_timeout=fast", want: "connect_timeout=fast: want"},
		{dsn: base + "keepalives_count=-3", want: "keepalives_count=-3: want"},
		{dsn: base + "load_balance_hosts=round", want: "load_balance_hosts=round: want disable or random"},
		{dsn: "postgres://ann:sekret@db/app?pool_size=abc", want: "pool_size=abc: want"},
		{dsn: base + "pool_size=postgres://ann:sekret@db/app", want: "pool_size=(xxxxx): want"},

		{dsn: base + "pool_sise=5", want: "unknown key pool_sise; did you mean pool_size?"},
		{dsn: base + "Pool_Size=5", want: "unknown key Pool_Size; did you mean pool_size?"},
		{dsn: base + "fensing=off", want: "unknown key fensing; did you mean fencing?"},
		{dsn: base + "leak_threshold_seconds=300", want: "unknown key leak_threshold_seconds; did you mean leak_threshold?"},
		{dsn: base + "pool_colour=red", want: "unknown key pool_colour"},
		{dsn: "host=db user=ann Password=sekret", want: "unknown key Password; did you mean password?"},
		{dsn: base + "pool_max_conns=5", want: "pool_max_conns is a key of pgxpool's; here it is pool_size and max_overflow"},
		{dsn: base + "pool_max_conn_lifetime=5m", want: "here it is pool_recycle"},
		{dsn: base + "hostaddr=10.0.0.1", want: "hostaddr is not known to base_driver=pgx"},
		{dsn: base + "base_driver=pq servicefile=x", want: "servicefile is not known to base_driver=pq"},
		{dsn: base + "gssencmode=disable", want: "gssencmode is known to libpq, but not to base_driver=pgx"},

		{dsn: base + "port=0", want: "port=0: want a number from 1 to 65535"},
		{dsn: base + "port=1,70000", want: "port=70000: want"},
		{dsn: base + "host=a,b port=1,2,3", want: "base driver pgx: could not match 3 port numbers to 2 hosts"},
		{dsn: base + "host=a,b port=1,2,3 base_driver=pq", want: "base driver pq: could not match 3 port numbers to 2 hosts"},
		{dsn: base + "sslmode=on", want: "base driver pgx: failed to configure TLS (sslmode is invalid)"},
		{dsn: base + "sslmode=on base_driver=pq", want: `base driver pq: wrong value for "sslmode"`},
		{dsn: base + "sslrootcert=/no/such/file", want: "/no/such/file"},
		{dsn: base + "default_query_exec_mode=x", want: `invalid default_query_exec_mode (unknown value "x")`},
		{dsn: base + "base_driver=pq binary_parameters=x", want: "binary_parameters"},
		{dsn: base + "base_driver=pq client_encoding=sekret", want: "why is not shown"},
		{dsn: base + "service=none", want: "base driver pgx: failed to read service"},
		{dsn: base + "host=[::1]", want: "host=[::1]: want an IPv6 address without brackets"},
		{dsn: "host=postgres://ann:sekret@db/app", want: "host holds a URL"},
		{dsn: "dbname=postgres://ann:sekret@db/app", want: "dbname holds a DSN"},
		{dsn: "dbname='host=db password=sekret'", want: "dbname holds a DSN"},
		{dsn: base + "dbname='a\nb'", want: "dbname holds a control character"},

		{dsn: "postgres://ann:sekret@pass@db/app", want: "a second @ in the URL"},
		{dsn: "postgres://ann:pass@sekret@db/app", want: "a second @ in the URL"},
		{dsn: "postgres://ann:sekret/pass@db/app", want: "a port in the URL"},
		{dsn: "postgres://ann:123/sekret@db/app", want: "an @ in the database name of the URL"},
		{dsn: "postgres://ann?password=sekret@db/app", want: "a ? in the user name"},
		{dsn: "postgres://ann:sekret%@db/app", want: "password: a % without two hexadecimal digits"},
		{dsn: "postgres://ann:sekret%zz@db/app", want: "password: a % without two hexadecimal digits"},
		{dsn: "postgres://ann:sekret%00@db/app", want: "password: %00 is not allowed"},
		{dsn: "postgres://ann:sekret%ff@db/app", want: "password: it is not valid UTF-8"},
		{dsn: "postgres://ann:sekret pass@db/app", want: "password: a space is written %20"},
		{dsn: "postgres://ann:sekret@db/app\n", want: "a control character or line break at position 29"},
		{dsn: "postgres://ann:sekret@db:abc/app", want: "a port in the URL: want a number from 1 to 65535"},
		{dsn: "postgres://ann:sekret@[::1/app", want: "an IPv6 address in the URL"},
		{dsn: "postgres://ann:sekret@[]/app", want: "an IPv6 address in the URL"},
		{dsn: "postgres://ann:sekret@[::1]5432/app", want: "an IPv6 address in the URL"},
		{dsn: "postgres://ann:sekret@db/app?pool_size", want: "parameter 1 of the URL's query: want key=value"},
		{dsn: "postgres://db/app?user=ann&password=a&sekret", want: "parameter 3 of the URL's query: want key=value"},
		{dsn: "postgres://db/app?password=sekret=", want: "parameter 1 of the URL's query: want key=value"},
		{dsn: "postgres://db/app?pass word=sekret", want: "parameter 1 of the URL's query: its key is none"},
		{dsn: "postgres://db/app?password=sekret%", want: "parameter 1 of the URL's query: password: a %"},
		{dsn: "mysql://ann:sekret@db/app", want: "no key at position 1 of the DSN; want key=value pairs, or a URL"},
		{dsn: "http://ann:sekret@db/app?sslmode=disable", want: "no key at position 1 of the DSN"},
		{dsn: "sekret", want: "a word without = at position 1"},
		{dsn: "host=db password=my sekret", want: "a word without = at position 21"},
		{dsn: "host=db password='sekret", want: "the quote at position 18 of the DSN is not closed"},
		{dsn: `host=db password='sekret\'`, want: "the quote at position 18 of the DSN is not closed"},
		{dsn: "host=db =sekret", want: "no key at position 9"},
		{dsn: "host=db password=sekret\x00", want: "a NUL byte at position 24"},
		{dsn: "host=db password=sekret\xff", want: "not valid UTF-8"},

		{dsn: base + "failover_urls=postgres://ann:sekret@pass@b/app", want: "failover_urls, DSN 1: a second @ in the URL"},
		{dsn: base + "failover_urls='postgres://b/app, postgres://ann:sekret@c/app?pool_size=5'", want: "failover_urls, DSN 2: pool_size belongs to the pool"},
		{dsn: base + "failover_urls=sekret", want: "failover_urls, DSN 1: a word without ="},
		{dsn: base + "failover=off failover_urls='host=b password=sekret sslmode=x'", want: "failover_urls, DSN 1: base driver pgx: failed to configure TLS"},

		{env: env{"DB_POOL_SIZE": "abc"}, dsn: base, want: "DB_POOL_SIZE=abc: want a whole number"},
		{env: env{"DB_POOL_SIZE": "0"}, dsn: base, want: "DB_POOL_SIZE=0: want"},
		{env: env{"DB_MAX_OVERFLOW": "3"}, dsn: base, want: "DB_MAX_OVERFLOW=3: want pool_size with it"},
		{env: env{"DB_POOL_MIN_IDLE": "9"}, dsn: base + "pool_size=5", want: "DB_POOL_MIN_IDLE=9: want at most pool_size (5)"},
		{env: env{"DB_LEAK_DETECTION": "maybe"}, dsn: base, want: "DB_LEAK_DETECTION=maybe: want"},
		{env: env{"DB_BASE_DRIVER": "odbc"}, dsn: base, want: "DB_BASE_DRIVER=odbc: want pgx or pq"},
		{env: env{"PGCONNECT_TIMEOUT": "fast"}, dsn: base, want: "PGCONNECT_TIMEOUT=fast: want"},
		{env: env{"PGTARGETSESSIONATTRS": "x"}, dsn: base, want: "PGTARGETSESSIONATTRS=x: want"},
		{env: env{"PGPORT": "x", "DB_BASE_DRIVER": "pq"}, dsn: base, want: "$PGPORT"},
		{env: env{"PGLOADBALANCEHOSTS": "round", "DB_BASE_DRIVER": "pq"}, dsn: base, want: "PGLOADBALANCEHOSTS=round: want disable or random"},
		{env: env{"PGSERVICE": "none", "PGPASSWORD": "sekret"}, dsn: "", want: "failed to read service"},
		{env: env{"DATABASE_URL": "postgres://ann:sekret@db/app?pool_size=abc"}, want: "DATABASE_URL: pool_size=abc: want"},
		{env: env{"DATABASE_URL": "ann:sekret@db/app"}, want: "DATABASE_URL: no key at position 1"},
		{env: env{"DATABASE_URL": base, "DATABASE_FAILOVER_URLS": "postgres://ann:sekret@b:x/app"}, want: "DATABASE_FAILOVER_URLS, DSN 1: a port in the URL"},
		{env: env{"PGSERVICEFILE": services}, dsn: "service=ours", want: "service ours: pool_size does not go in a service file: give it in the DSN or in DB_POOL_SIZE"},
		{env: env{"PGHOST": "a,b"}, dsn: "password=sekret base_driver=pq", want: "several hosts from PGHOST"},
		{env: env{"PGHOST": "a,b"}, dsn: base + "base_driver=pq", want: "several hosts from PGHOST"},
		{env: env{"PGSERVICEFILE": services}, dsn: "service=many base_driver=pq", want: "give them in the DSN alone"},
	} {
		t.Run(test.want, func(t *testing.T) {
			setenv(t, test.env)
			c, err := ParseDSN(test.dsn)
			if err == nil {
				t.Fatalf("%s is accepted: %v", test.dsn, c)
			}
			if !strings.HasPrefix(err.Error(), "managedpg: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: error\n%v\nwant\n%s", test.dsn, err, test.want)
			}
			if strings.Contains(err.Error(), "sekret") || strings.Contains(err.Error(), "pass@") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}
