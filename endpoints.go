package managedpg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgservicefile"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
)

const defaultPort = "5432"

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// endpointDSN is one server for the base driver.
type endpointDSN struct {
	name string // host:port/dbname; a socket's is its folder, /run/postgresql:5432/app. No secrets.
	dsn  string // key=value form, with a single host; holds the password
}

// endpoints takes the DSN and the failover URLs apart into single servers, in order of preference. Hosts, ports and
// names come from the base driver, so that its own environment (PGHOST, ...) and service files count.
func (c *Config) endpoints() ([]endpointDSN, error) {
	return c.endpointsFrom("failover_urls")
}

// endpointsFrom is endpoints, and says where the failover URLs come from: the key or an environment variable.
func (c *Config) endpointsFrom(origin string) ([]endpointDSN, error) {
	if c.base == nil {
		return nil, errors.New("a Config without a DSN: start from ParseDSN and change fields")
	}
	all, err := c.resolve(*c.base)
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
	return distinct(all), nil
}

func (c *Config) resolveFailover(dsn string) ([]endpointDSN, error) {
	s, err := split(dsn, c.BaseDriver == "pq")
	if err != nil {
		return nil, err
	}
	for _, own := range s {
		if keyNamed(own.key) != nil {
			return nil, fmt.Errorf("%s belongs to the pool and goes in the main DSN", own.key)
		}
	}
	service, err := serviceSettings(s)
	if err != nil {
		return nil, err
	}
	if len(service) > 0 {
		return nil, fmt.Errorf("%s in its service belongs to the pool and goes in the main DSN", service[0].key)
	}
	return c.resolve(s)
}

// distinct drops an endpoint that is there twice, and tells apart those that differ only in what a name doesn't show.
func distinct(all []endpointDSN) []endpointDSN {
	var r []endpointDSN
	seen := map[endpointDSN]bool{}
	named := map[string]int{}
	for _, e := range all {
		if seen[e] {
			continue
		}
		seen[e] = true
		if named[e.name]++; named[e.name] > 1 {
			e.name += "#" + strconv.Itoa(named[e.name])
		}
		r = append(r, e)
	}
	return r
}

// neutral are the keys that managedpg sees to and the base driver knows as well: its own environment must not make it
// meddle.
var neutral = []setting{{"connect_timeout", "0"}, {"target_session_attrs", "any"}}

// server is one host as the base driver resolved it.
type server struct{ host, addr, port string }

func (c *Config) resolve(s settings) ([]endpointDSN, error) {
	parse, base := parsePgx, "pgx"
	if c.BaseDriver == "pq" {
		parse, base = parsePq, "pq"
	}
	s, err := c.forBase(s)
	if err != nil {
		return nil, err
	}
	s = s.with(neutral...)
	servers, dbname, err := parse(s)
	if err != nil {
		return nil, baseError(base, s, err)
	}
	var all []endpointDSN
	for _, one := range servers {
		own := s
		if len(servers) > 1 {
			own = s.with(setting{"host", one.host}, setting{"port", one.port})
			if one.addr != "" {
				own = own.with(setting{"hostaddr", one.addr})
			}
			got, _, err := parse(own)
			if err != nil {
				return nil, baseError(base, s, err)
			}
			if len(got) != 1 || got[0] != one {
				// lib/pq adds the hosts of PGHOST to those of the DSN, and lets a service win over both.
				return nil, fmt.Errorf("base driver %s: several hosts from PGHOST or a service: give them in the DSN alone", base)
			}
		}
		all = append(all, endpointDSN{one.name() + "/" + dbname, own.String()})
	}
	return all, nil
}

func (s server) name() string {
	host := s.host
	if s.addr != "" && host == "" {
		host = s.addr
	}
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") {
		return host + ":" + s.port
	}
	return net.JoinHostPort(host, s.port)
}

func parsePgx(s settings) ([]server, string, error) {
	cfg, err := pgx.ParseConfig(s.String())
	if err != nil {
		return nil, "", err
	}
	servers := []server{{host: cfg.Host, port: strconv.Itoa(int(cfg.Port))}}
	for _, f := range cfg.Fallbacks {
		// A host is there twice when it may be spoken to with and without TLS.
		next := server{host: f.Host, port: strconv.Itoa(int(f.Port))}
		if next != servers[len(servers)-1] {
			servers = append(servers, next)
		}
	}
	return servers, orUser(cfg.Database, cfg.User), nil
}

func parsePq(s settings) ([]server, string, error) {
	cfg, err := pq.NewConfig(s.String())
	if err != nil {
		return nil, "", err
	}
	if cfg.LoadBalanceHosts == pq.LoadBalanceHostsRandom {
		return nil, "", errors.New("PGLOADBALANCEHOSTS=random: want " + noLoadBalancing)
	}
	var servers []server
	for _, m := range append([]pq.ConfigMultihost{{Host: cfg.Host, Hostaddr: cfg.Hostaddr, Port: cfg.Port}}, cfg.Multi...) {
		one := server{host: m.Host, port: strconv.Itoa(int(m.Port))}
		if m.Hostaddr != (netip.Addr{}) {
			one.addr = m.Hostaddr.String()
		} else if one.host == "" {
			one.host = "localhost"
		}
		servers = append(servers, one)
	}
	return servers, orUser(cfg.Database, cfg.User), nil
}

// orUser: the server's default for the database is the user's name.
func orUser(dbname, user string) string {
	if dbname == "" {
		return user
	}
	return dbname
}

// baseError passes the base driver's complaint on, without the DSN that pgx puts in it, and without the error itself,
// which holds the DSN with its password.
func baseError(base string, s settings, err error) error {
	text := strings.TrimPrefix(err.Error(), "pq: ")
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		if i := strings.LastIndex(text, "`: "); i >= 0 {
			text = text[i+len("`: "):]
		}
	}
	secrets := []string{os.Getenv("PGPASSWORD"), os.Getenv("PGSSLPASSWORD")}
	for _, own := range s {
		if baseKeys[own.key]&secret != 0 {
			secrets = append(secrets, own.value)
		}
	}
	for _, v := range secrets {
		if v != "" && strings.Contains(text, v) {
			text = "it refuses the DSN (why is not shown: the message holds a secret)"
		}
	}
	return fmt.Errorf("base driver %s: %s", base, text)
}

// serviceSettings are the keys of ours in the service that a DSN (or PGSERVICE) names. Those that are libpq's count;
// others are an error, because the base driver reads the same file and would send them to the server. A service that
// can't be read is the base driver's to complain about.
func serviceSettings(s settings) (settings, error) {
	name, ok := s.value("service")
	if !ok {
		name = os.Getenv("PGSERVICE")
	}
	if name == "" {
		return nil, nil
	}
	path, ok := s.value("servicefile")
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
	var ours settings
	for _, k := range keys {
		if v, ok := service.Settings[k.name]; ok {
			if k.pgEnv == "" {
				return nil, fmt.Errorf("service %s: %s does not go in a service file: give it in the DSN or in %s", name, k.name, k.env())
			}
			ours = append(ours, setting{k.name, v})
		}
	}
	return ours, nil
}

// What is known of a key that is not ours.
const (
	inPgx    = 1 << iota // pgx takes it, or passes it to the server as a parameter that every server knows
	inPq                 // so does lib/pq
	inLibpq              // it is libpq's, and neither takes it
	inServer             // it is a parameter of the server's
	harmless             // its value may be shown
	secret               // its value must not even be part of another message
)

const inBoth = inPgx | inPq

// baseKeys are the keys of libpq and of the base drivers. Any other key is a parameter of the server's.
var baseKeys = map[string]int{
	"application_name":               inBoth | inServer | harmless,
	"binary_parameters":              inPq | harmless,
	"channel_binding":                inPgx | harmless,
	"client_encoding":                inBoth | inServer | harmless,
	"datestyle":                      inBoth | inServer | harmless,
	"dbname":                         inBoth | harmless,
	"default_query_exec_mode":        inPgx | harmless,
	"description_cache_capacity":     inPgx | harmless,
	"disable_prepared_binary_result": inPq | harmless,
	"fallback_application_name":      inPq | harmless,
	"gssdelegation":                  inLibpq,
	"gssencmode":                     inLibpq,
	"gsslib":                         inLibpq,
	"host":                           inBoth | harmless,
	"hostaddr":                       inPq | harmless,
	"krbspn":                         inBoth | harmless,
	"krbsrvname":                     inBoth | harmless,
	"load_balance_hosts":             inBoth,
	"max_protocol_version":           inBoth | harmless,
	"min_protocol_version":           inBoth | harmless,
	"oauth_client_id":                inLibpq,
	"oauth_client_secret":            inLibpq | secret,
	"oauth_issuer":                   inLibpq,
	"oauth_scope":                    inLibpq,
	"options":                        inBoth,
	"passfile":                       inBoth | harmless,
	"password":                       inBoth | secret,
	"port":                           inBoth | harmless,
	"replication":                    inBoth | harmless,
	"require_auth":                   inPgx | harmless,
	"requirepeer":                    inLibpq,
	"requiressl":                     inLibpq,
	"scram_client_key":               inLibpq | secret,
	"scram_server_key":               inLibpq | secret,
	"search_path":                    inBoth | inServer | harmless,
	"service":                        inBoth | harmless,
	"servicefile":                    inPgx | harmless,
	"ssl_max_protocol_version":       inPq | harmless,
	"ssl_min_protocol_version":       inPq | harmless,
	"sslcert":                        inBoth, // with sslinline not a path but the thing itself; so are the next ones
	"sslcertmode":                    inPgx | harmless,
	"sslcompression":                 inLibpq,
	"sslcrl":                         inLibpq,
	"sslcrldir":                      inLibpq,
	"sslinline":                      inPq | harmless,
	"sslkey":                         inBoth | secret,
	"sslkeylogfile":                  inLibpq,
	"sslmode":                        inBoth | harmless,
	"sslnegotiation":                 inBoth | harmless,
	"sslpassword":                    inPgx | secret,
	"sslrootcert":                    inBoth,
	"sslsni":                         inBoth | harmless,
	"statement_cache_capacity":       inPgx | harmless,
	"statement_timeout":              inBoth | inServer | harmless,
	"timezone":                       inBoth | inServer | harmless,
	"tz":                             inPq | harmless,
	"user":                           inBoth | harmless,
}

const noLoadBalancing = "disable: managedpg prefers hosts in the order in which they are given"

// forBase is what of s goes to the base driver. A key that it doesn't know but libpq or the other one does is an error:
// it would go to the server as a parameter, and fail there at the first connection.
func (c *Config) forBase(s settings) (settings, error) {
	in, base := inPgx, "pgx"
	if c.BaseDriver == "pq" {
		in, base = inPq, "pq"
	}
	var r settings
	for _, own := range s {
		known := baseKeys[own.key]
		switch {
		case own.key == "load_balance_hosts":
			if own.value != "disable" {
				return nil, badValue(own.key, own.value, noLoadBalancing)
			}
			continue
		case known == 0:
			if err := checkUnknown(own.key); err != nil {
				return nil, err
			}
		case known&in != 0:
		case known&inBoth != 0:
			return nil, fmt.Errorf("%s is not known to base_driver=%s, only to the other one", own.key, base)
		default:
			return nil, fmt.Errorf("%s is known to libpq, but not to base_driver=%s", own.key, base)
		}
		r = append(r, own)
	}
	return r, nil
}
