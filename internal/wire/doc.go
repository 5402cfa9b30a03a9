// Package wire is the network connection under a base driver's connection: the socket that we dial for it, so that we can count what
// it writes, look whether the server has closed it, and close it from outside with a reason. It knows the protocol's cancel request and as
// much of the startup as that takes, and no driver.
package wire
