// Package base is what differs between the base drivers: pgx, lib/pq, and a connector of the user's own. An Endpoint opens connections
// through one of them, and a Conn is such a connection. Nothing above this package knows which driver it is.
package base
