// Package conn is a connection's life: the physical connection, the pool it lives in, and the logical connection (Conn,
// Stmt, Tx) that database/sql holds.
//
// It keeps the promise that no statement is sent twice: driver.ErrBadConn, on which database/sql tries again, leaves this
// package only when not one byte of the call reached the socket.
package conn
