package dsn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
)

const defaultPort = "5432"

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// Endpoint is one server for the base driver.
type Endpoint struct {
	Name string // host:port/dbname; a socket's is its folder, /run/postgresql:5432/app. No secrets.
	DSN  string // key=value form, with a single host; holds the password
}

// Distinct drops an endpoint that is there twice, and tells apart those that differ only in what a name doesn't show.
func Distinct(all []Endpoint) []Endpoint {
	var r []Endpoint
	seen := map[Endpoint]bool{}
	named := map[string]int{}
	for _, e := range all {
		if seen[e] {
			continue
		}
		seen[e] = true
		if named[e.Name]++; named[e.Name] > 1 {
			e.Name += "#" + strconv.Itoa(named[e.Name])
		}
		r = append(r, e)
	}
	return r
}

// neutral are the keys that managedpg sees to and the base driver knows as well: its own environment must not make it
// meddle.
var neutral = []Setting{{"connect_timeout", "0"}, {"target_session_attrs", "any"}}

// server is one host as the base driver resolved it.
type server struct{ host, addr, port string }

// maxEndpoints is the most that a pool has: each is watched by a goroutine and a connection.
const maxEndpoints = 64

// CheckNumber is the error for more endpoints than a pool has.
func CheckNumber(origin, what string, n int) error {
	if n > maxEndpoints {
		return fmt.Errorf("%s: %d %s: want %d at most", origin, n, what, maxEndpoints)
	}
	return nil
}

// Endpoints are the single servers that a DSN without own keys leads to, in order. base is pgx or pq. Hosts, ports and names come
// from the base driver, so that its own environment (PGHOST, ...) and service files count.
func (r Reader) Endpoints(base string, s Settings) ([]Endpoint, error) {
	parse := parsePgx
	if base == "pq" {
		parse = parsePq
	}
	s, err := r.forBase(base, s)
	if err != nil {
		return nil, err
	}
	s = s.With(neutral...)
	servers, dbname, err := parse(s)
	if err != nil {
		return nil, baseError(base, s, err)
	}
	if err := CheckNumber("host", "hosts", len(servers)); err != nil {
		return nil, err
	}
	var all []Endpoint
	for _, one := range servers {
		own := s
		if len(servers) > 1 {
			own = s.With(Setting{"host", one.host}, Setting{"port", one.port})
			if one.addr != "" {
				own = own.With(Setting{"hostaddr", one.addr})
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
		all = append(all, Endpoint{one.name() + "/" + dbname, own.String()})
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

func parsePgx(s Settings) ([]server, string, error) {
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

func parsePq(s Settings) ([]server, string, error) {
	inOrder := append(slices.Clone(s), Setting{"load_balance_hosts", "disable"}) // whatever PGLOADBALANCEHOSTS says
	cfg, err := pq.NewConfig(inOrder.String())
	if err != nil {
		return nil, "", err
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
func baseError(base string, s Settings, err error) error {
	text := strings.TrimPrefix(err.Error(), "pq: ")
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		if i := strings.LastIndex(text, "`: "); i >= 0 {
			text = text[i+len("`: "):]
		}
	}
	secrets := []string{os.Getenv("PGPASSWORD"), os.Getenv("PGSSLPASSWORD")}
	for _, own := range s {
		if baseKeys[own.Key]&secret != 0 {
			secrets = append(secrets, own.Value)
		}
	}
	for _, v := range secrets {
		if v != "" && strings.Contains(text, v) {
			text = "it refuses the DSN (why is not shown: the message holds a secret)"
		}
	}
	return fmt.Errorf("base driver %s: %s", base, text)
}

// forBase is what of s goes to the base driver. A key that it doesn't know but libpq or the other one does is an error:
// it would go to the server as a parameter, and fail there at the first connection.
func (r Reader) forBase(base string, s Settings) (Settings, error) {
	in := inPgx
	if base == "pq" {
		in = inPq
	}
	var kept Settings
	for _, own := range s {
		known := baseKeys[own.Key]
		switch {
		case known == 0:
			if err := r.checkUnknown(own.Key); err != nil {
				return nil, err
			}
		case known&in != 0:
		case known&inBoth != 0:
			return nil, fmt.Errorf("%s is not known to base_driver=%s, only to the other one", own.Key, base)
		default:
			return nil, fmt.Errorf("%s is known to libpq, but not to base_driver=%s", own.Key, base)
		}
		kept = append(kept, own)
	}
	return kept, nil
}
