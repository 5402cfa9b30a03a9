// Package dsn reads DSNs as libpq, pgx and lib/pq do, writes them, and hides what must not be shown. It knows the keys of the base
// drivers, and of others only their names.
package dsn
