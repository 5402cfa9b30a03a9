package dsn

import (
	"fmt"
	"slices"
	"strings"
)

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

// Known says that a key is libpq's or a base driver's.
func Known(key string) bool { return baseKeys[key] != 0 }

// Secret says that a key's value must not even be part of another message.
func Secret(key string) bool { return baseKeys[key]&secret != 0 }

// ourPrefixes begin no parameter of PostgreSQL's, so a key that begins so is meant for us.
var ourPrefixes = []string{"pool_", "leak_", "health_", "failover", "failback"}

// pgxpoolKeys are those that pgxpool knows, and what they are called here.
var pgxpoolKeys = map[string]string{
	"pool_max_conns":                "pool_size and max_overflow",
	"pool_min_conns":                "pool_min_idle",
	"pool_min_idle_conns":           "pool_min_idle",
	"pool_max_conn_lifetime":        "pool_recycle",
	"pool_max_conn_lifetime_jitter": "pool_recycle (always jittered by a tenth)",
	"pool_max_conn_idle_time":       "pool_idle_timeout",
	"pool_health_check_period":      "health_check_interval",
	"pool_ping_timeout":             "health_check_timeout",
}

// checkUnknown rejects a key that is neither ours nor the base driver's, but must be meant for one of us: passed on, it
// would silently become a parameter of the server's and fail at the first connection.
func (r Reader) checkUnknown(name string) error {
	if ours, ok := pgxpoolKeys[name]; ok {
		return fmt.Errorf("%s is a key of pgxpool's; here it is %s", name, ours)
	}
	lower := strings.ToLower(name)
	if strings.Contains(lower, ".") || baseKeys[name] != 0 {
		return nil
	}
	if known := baseKeys[lower]; known&inServer != 0 {
		return nil // the server doesn't care for case
	} else if known != 0 {
		return fmt.Errorf("unknown key %s; did you mean %s?", name, lower)
	}
	best, distance := "", 3
	for _, own := range r.Own {
		if d := editDistance(lower, own); d < distance {
			best, distance = own, d
		} else if best == "" && strings.HasPrefix(lower, own+"_") {
			best = own
		}
	}
	prefixed := slices.ContainsFunc(ourPrefixes, func(p string) bool { return strings.HasPrefix(lower, p) })
	switch {
	case best != "" && (distance < 3 || prefixed):
		return fmt.Errorf("unknown key %s; did you mean %s?", name, best)
	case prefixed:
		return fmt.Errorf("unknown key %s", name)
	}
	return nil
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
