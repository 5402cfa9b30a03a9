// Package usercode tells what a user's code returned, in the middle of work of ours, from what a server said.
package usercode
