package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

var errNoPostgres = errors.New("pgtest: no PostgreSQL server in PATH or /usr/lib/postgresql: install one " +
	"(Debian, Ubuntu: apt-get install postgresql), or set MANAGEDPG_PG_BIN to the folder that holds initdb and postgres")

// findBinaries is the folder that holds initdb and postgres.
func findBinaries() (string, error) {
	if dir := os.Getenv("MANAGEDPG_PG_BIN"); dir != "" {
		if !hasServer(dir) {
			return "", fmt.Errorf("pgtest: MANAGEDPG_PG_BIN is %q, which holds no initdb and postgres", dir)
		}
		return dir, nil
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		// What is in PATH may be a link to a lone binary, with the others beside the real one.
		if real, err := filepath.EvalSymlinks(path); err == nil && hasServer(filepath.Dir(real)) {
			return filepath.Dir(real), nil
		}
	}
	// Debian keeps the server's binaries out of PATH, a folder for each major version.
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	newest, version := "", 0.0
	for _, dir := range dirs {
		v, err := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64)
		if err == nil && v > version && hasServer(dir) {
			newest, version = dir, v
		}
	}
	if newest == "" {
		return "", errNoPostgres
	}
	return newest, nil
}

func hasServer(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}
