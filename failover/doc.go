// Package failover has the words in which a pool tells of its servers: what is known of each ([Health]), which one is used and how it
// came to that ([Status], [Event]), and why none could be used or a connection had to go ([NoEndpointError], [DropError]).
//
// What decides all that is in internal/failover.
package failover
