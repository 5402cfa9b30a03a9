// Package resolve finds out what became of a COMMIT that was sent and not answered. The server can be asked, if one knows the
// transaction's id and asks the same server on the same timeline. A crash in between can lose an id that was given out, and give it to
// somebody else: so "committed" is believed of a server that has certainly not crashed since, "aborted" always. That it has not crashed
// shows a connection that is older than the COMMIT and still alive, which the pool is asked for.
package resolve
