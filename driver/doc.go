// Package driver makes one pool of the parts: connections, failover, leak detection and figures. It is managedpg's inside, where
// the packages below stats find what they publish; a program names package managedpg instead. Nothing here touches a query.
package driver
