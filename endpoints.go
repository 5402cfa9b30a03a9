package managedpg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/jackc/pgservicefile"

	"github.com/managedpg/managedpg/internal/dsn"
)

// endpoints takes the DSN and the failover URLs apart into single servers, in order of preference. Hosts, ports and
// names come from the base driver, so that its own environment (PGHOST, ...) and service files count.
func (c *Config) endpoints() ([]dsn.Endpoint, error) {
	return c.endpointsFrom("failover_urls")
}

// endpointsFrom is endpoints, and says where the failover URLs come from: the key or an environment variable.
func (c *Config) endpointsFrom(origin string) ([]dsn.Endpoint, error) {
	if c.base == nil {
		return nil, errors.New("a Config without a DSN: start from ParseDSN and change fields")
	}
	if err := dsn.CheckNumber(origin, "DSNs", len(c.FailoverURLs)); err != nil {
		return nil, err
	}
	all, err := reader.Endpoints(c.BaseDriver, *c.base)
	if err != nil {
		return nil, err
	}
	for i, u := range c.FailoverURLs {
		further, err := c.resolveFailover(u)
		if err != nil {
			return nil, fmt.Errorf("%s, DSN %d: %w", origin, i+1, err)
		}
		all = append(all, further...)
	}
	if !c.Failover {
		all = all[:1]
	}
	if err := dsn.CheckNumber(origin, "hosts in all", len(all)); err != nil {
		return nil, err
	}
	return dsn.Distinct(all), nil
}

func (c *Config) resolveFailover(text string) ([]dsn.Endpoint, error) {
	s, err := reader.Split(text, c.BaseDriver == "pq")
	if err != nil {
		return nil, err
	}
	for _, own := range s {
		if keyNamed(own.Key) != nil {
			return nil, fmt.Errorf("%s belongs to the pool and goes in the main DSN", own.Key)
		}
	}
	service, err := serviceSettings(s)
	if err != nil {
		return nil, err
	}
	if len(service) > 0 {
		return nil, fmt.Errorf("%s in its service belongs to the pool and goes in the main DSN", service[0].Key)
	}
	return reader.Endpoints(c.BaseDriver, s)
}

// serviceSettings are the keys of ours in the service that a DSN (or PGSERVICE) names. Those that are libpq's count;
// others are an error, because the base driver reads the same file and would send them to the server. A service that
// can't be read is the base driver's to complain about.
func serviceSettings(s dsn.Settings) (dsn.Settings, error) {
	name, ok := s.Value("service")
	if !ok {
		name = os.Getenv("PGSERVICE")
	}
	if name == "" {
		return nil, nil
	}
	path, ok := s.Value("servicefile")
	if !ok {
		path = os.Getenv("PGSERVICEFILE")
	}
	if home, err := os.UserHomeDir(); path == "" && err == nil {
		path = filepath.Join(home, ".pg_service.conf")
	}
	file, err := pgservicefile.ReadServicefile(path)
	if err != nil {
		return nil, nil
	}
	service, err := file.GetService(name)
	if err != nil {
		return nil, nil
	}
	var ours dsn.Settings
	for _, k := range keys {
		if v, ok := service.Settings[k.name]; ok {
			if k.pgEnv == "" {
				return nil, fmt.Errorf("service %s: %s does not go in a service file: give it in the DSN or in %s", name, k.name, k.env())
			}
			ours = append(ours, dsn.Setting{Key: k.name, Value: v})
		}
	}
	return ours, nil
}
