// Package rig is what the end-to-end tests share: the ways to run managedpg, pools for as long as a test runs, and checks.
package rig
