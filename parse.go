package managedpg

import (
	"fmt"
	"os"

	"github.com/managedpg/managedpg/internal/dsn"
)

// ParseDSN gives what sql.Open would use: the DSN over the environment over the defaults. See [Config] for the keys.
//
// A DSN is a postgres:// URL or libpq's key=value pairs. An empty one stands for DATABASE_URL; when that is unset too,
// the base driver's own environment and defaults hold (PGHOST, PGSERVICE, ...). Each key of managedpg's has a variable:
// DB_ and the key in capitals. An empty variable counts as unset, and of a key given twice the last counts, as in libpq.
// DATABASE_FAILOVER_URLS (URLs separated by commas) counts only when the DSN is empty or equal to DATABASE_URL.
// Service files are read by the base driver; of managedpg's keys only libpq's target_session_attrs and connect_timeout
// may be in there.
//
// An error names the key or variable, its value and what is accepted; it never shows a password.
func ParseDSN(dsn string) (*Config, error) {
	c, _, err := parse(dsn)
	return c, err
}

// parse is ParseDSN, and the servers that the DSNs lead to.
func parse(text string) (c *Config, servers []dsn.Endpoint, err error) {
	url := os.Getenv("DATABASE_URL")
	var failoverURLs string
	empty := dsn.Empty(text)
	if empty || text == url {
		failoverURLs = os.Getenv("DATABASE_FAILOVER_URLS")
	}
	if empty && url != "" {
		c, servers, err = parseWith(url, failoverURLs)
		if err != nil {
			err = fmt.Errorf("DATABASE_URL: %w", err)
		}
	} else {
		c, servers, err = parseWith(text, failoverURLs)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("managedpg: %w", err)
	}
	return c, servers, nil
}

func parseWith(text, failoverURLs string) (*Config, []dsn.Endpoint, error) {
	given, err := reader.Split(text, false)
	if err != nil {
		return nil, nil, err
	}
	if base, ok := given.Value("base_driver"); base == "pq" || !ok && os.Getenv("DB_BASE_DRIVER") == "pq" {
		if given, err = reader.Split(text, true); err != nil {
			return nil, nil, err
		}
	}
	service, err := serviceSettings(given)
	if err != nil {
		return nil, nil, err
	}

	c := &Config{base: &dsn.Settings{}}
	origins := map[string]string{} // by key, for those that were given
	origin := func(key string) string {
		if o, ok := origins[key]; ok {
			return o
		}
		return key
	}
	for _, k := range keys {
		k.set(c, k.def)
		for _, v := range k.given(given, service, failoverURLs) {
			origins[k.name] = v.Key
			if k.needsPool && c.PoolSize == 0 && origins["pool_size"] == "pool_size" && v.Key != k.name {
				continue // pool_size=none in the DSN puts the environment's pool out of force
			}
			if !k.set(c, v.Value) {
				return nil, nil, dsn.BadValue(v.Key, v.Value, k.want)
			}
			if k.needsPool && c.PoolSize == 0 {
				return nil, nil, dsn.BadValue(v.Key, v.Value, needsPoolSize)
			}
		}
	}

	for _, own := range given {
		if keyNamed(own.Key) == nil {
			*c.base = append(*c.base, own)
		}
	}
	endpoints, err := c.endpointsFrom(origin("failover_urls"))
	if err != nil {
		return nil, nil, err
	}
	for _, k := range keys {
		if _, ok := origins[k.name]; !ok && len(endpoints) > 1 && k.several != "" {
			k.set(c, k.several)
		}
	}
	if c.PoolName == "" {
		c.PoolName = endpoints[0].Name
	}
	if err := c.check(origin); err != nil {
		return nil, nil, err
	}
	return c, endpoints, nil
}

// given are the values that a key was given, and where (a key or variable): in the DSN, else in the service, else in
// the environment. Only a list has more than one.
func (k *key) given(inDSN, service dsn.Settings, failoverURLs string) dsn.Settings {
	var values dsn.Settings
	for _, own := range inDSN {
		if own.Key == k.name {
			values = append(values, own)
		}
	}
	if len(values) > 0 {
		return values
	}
	if v, ok := service.Value(k.name); ok {
		return dsn.Settings{{Key: k.name, Value: v}}
	}
	if k.list {
		if failoverURLs != "" {
			return dsn.Settings{{Key: "DATABASE_FAILOVER_URLS", Value: failoverURLs}}
		}
		return nil
	}
	for _, variable := range []string{k.env(), k.pgEnv} {
		if variable == "" {
			continue
		}
		if v := os.Getenv(variable); v != "" {
			return dsn.Settings{{Key: variable, Value: v}}
		}
	}
	return nil
}
