package managedpg

import (
	"fmt"
	"os"
	"strings"
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
	c, err := parse(dsn)
	if err != nil {
		return nil, fmt.Errorf("managedpg: %w", err)
	}
	return c, nil
}

func parse(dsn string) (*Config, error) {
	url := os.Getenv("DATABASE_URL")
	var failoverURLs string
	if empty := strings.Trim(dsn, space) == ""; empty || dsn == url {
		failoverURLs = os.Getenv("DATABASE_FAILOVER_URLS")
		if empty && url != "" {
			c, err := parseWith(url, failoverURLs)
			if err != nil {
				return nil, fmt.Errorf("DATABASE_URL: %w", err)
			}
			return c, nil
		}
	}
	return parseWith(dsn, failoverURLs)
}

func parseWith(dsn, failoverURLs string) (*Config, error) {
	given, err := split(dsn, false)
	if err != nil {
		return nil, err
	}
	if base, ok := given.value("base_driver"); base == "pq" || !ok && os.Getenv("DB_BASE_DRIVER") == "pq" {
		if given, err = split(dsn, true); err != nil {
			return nil, err
		}
	}
	service, err := serviceSettings(given)
	if err != nil {
		return nil, err
	}

	c := &Config{base: &settings{}}
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
			origins[k.name] = v.key
			if k.needsPool && c.PoolSize == 0 {
				if origins["pool_size"] == "pool_size" && v.key != k.name {
					continue // pool_size=none in the DSN puts the environment's pool out of force
				}
				return nil, badValue(v.key, v.value, needsPoolSize)
			}
			if !k.set(c, v.value) {
				return nil, badValue(v.key, v.value, k.want)
			}
		}
	}

	for _, own := range given {
		if keyNamed(own.key) == nil {
			*c.base = append(*c.base, own)
		}
	}
	endpoints, err := c.endpointsFrom(origin("failover_urls"))
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if _, ok := origins[k.name]; !ok && len(endpoints) > 1 && k.several != "" {
			k.set(c, k.several)
		}
	}
	if c.PoolName == "" {
		c.PoolName = endpoints[0].name
	}
	if err := c.check(origin); err != nil {
		return nil, err
	}
	return c, nil
}

// given are the values that a key was given, and where (a key or variable): in the DSN, else in the service, else in
// the environment. Only a list has more than one.
func (k *key) given(dsn, service settings, failoverURLs string) settings {
	var values settings
	for _, own := range dsn {
		if own.key == k.name {
			values = append(values, own)
		}
	}
	if len(values) > 0 {
		return values
	}
	if v, ok := service.value(k.name); ok {
		return settings{{k.name, v}}
	}
	if k.list {
		if failoverURLs != "" {
			return settings{{"DATABASE_FAILOVER_URLS", failoverURLs}}
		}
		return nil
	}
	for _, variable := range []string{k.env(), k.pgEnv} {
		if variable == "" {
			continue
		}
		if v := os.Getenv(variable); v != "" {
			return settings{{variable, v}}
		}
	}
	return nil
}
