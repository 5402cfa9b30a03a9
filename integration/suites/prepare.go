package main

import (
	"database/sql"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// swap are the files that are put beside a suite's own. Each takes managedpg for the driver when the variable SWAP says so.
//
//go:embed swap
var swap embed.FS

// edit changes text in files of a copy; it is an error if there is none, as the suite has changed then.
type edit struct{ files, text, by string }

func (e edit) apply(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, e.files))
	if err != nil {
		return err
	}
	text, changed := regexp.MustCompile(e.text), false
	for _, file := range files {
		old, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if edited := text.ReplaceAll(old, []byte(e.by)); string(edited) != string(old) {
			changed = true
			if err := os.WriteFile(file, edited, 0o644); err != nil {
				return err
			}
		}
	}
	if !changed {
		return fmt.Errorf("%s has no %s any more", e.files, e.text)
	}
	return nil
}

func preparePgx(dir, repo string) (string, error) {
	err := copyModule("github.com/jackc/pgx/v5", dir, repo,
		edit{"stdlib/*_test.go", `stdlib\.OpenDB\(`, "swappedOpenDB("},
		edit{"stdlib/*_test.go", `sql\.Open\("pgx", `, `sql.Open(swappedDriver(), `},
		edit{"stdlib/*_test.go", `\b(\w+)\.\(\*stdlib\.Conn\)`, `managedpg.Unwrap($1).(*stdlib.Conn)`},
		edit{"stdlib/*_test.go", `(?m)^\t"github.com/jackc/pgx/v5/stdlib"$`, "\t\"github.com/jackc/pgx/v5/stdlib\"\n\n\t\"github.com/managedpg/managedpg\""},
	)
	if err != nil {
		return "", err
	}
	pkg := filepath.Join(dir, "stdlib")
	return pkg, add(pkg, "pgx_test.go.txt")
}

// preparePgconn lets its tests have the pgconn.PgConn of a connection of managedpg's.
func preparePgconn(dir, repo string) (string, error) {
	err := copyModule("github.com/jackc/pgx/v5", dir, repo,
		edit{"pgconn/pgconn_test.go", `pgconn\.Connect\(`, "swappedConnect("},
		edit{"pgconn/pgconn_test.go", `pgconn\.ConnectConfig\(`, "swappedConnectConfig("},
	)
	if err != nil {
		return "", err
	}
	pkg := filepath.Join(dir, "pgconn")
	return pkg, add(pkg, "pgconn_test.go.txt")
}

func preparePq(dir, repo string) (string, error) {
	err := copyModule("github.com/lib/pq", dir, repo,
		edit{"*_test.go", `sql\.Open\("postgres", `, `sql.Open(pqtest.Driver(), `},
		edit{"internal/pqtest/pqtest.go", `sql\.Open\("postgres", `, `sql.Open(Driver(), `},
		edit{"*_test.go", `sql\.OpenDB\(`, "pqtest.OpenDB(sql.OpenDB, "},
		// Its fake server panics when a client hangs up before it has said anything, as a probe may that db.Close ends.
		edit{"internal/pqtest/fake.go", `(?m)^\t_, msg, ok := f\.read\(cn, true\)$`, "\t_, msg, ok := f.read(cn, true)\n\tif !ok {\n\t\treturn 0, nil, false\n\t}"},
		// Its own servers have these names in /etc/hosts.
		edit{"ssl_test.go", `\bhost=(postgres(-invalid)?)\b`, "host=$1 hostaddr=127.0.0.1"},
	)
	if err != nil {
		return "", err
	}
	// An example shows how a program is written, and names what it imports.
	for _, example := range []string{"example_test.go", "example126_test.go"} {
		if err := os.Remove(filepath.Join(dir, example)); err != nil {
			return "", err
		}
	}
	if err := add(filepath.Join(dir, "internal", "pqtest"), "pqtest.go.txt"); err != nil {
		return "", err
	}
	return dir, add(dir, "pq_test.go.txt")
}

func prepareSQL(dir, repo string) (string, error) {
	pkg := filepath.Join(dir, "database", "sql")
	if err := os.MkdirAll(pkg, 0o755); err != nil {
		return "", err
	}
	goroot, err := output("", "go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	source := filepath.Join(goroot, "src", "database", "sql")
	names, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if strings.HasPrefix(filepath.Base(name), "example_") {
			continue
		}
		if _, err := output("", "cp", name, pkg); err != nil {
			return "", err
		}
	}
	for _, e := range []edit{
		{"sql.go", `(?m)^func OpenDB\(c driver\.Connector\) \*DB \{$`, "func OpenDB(c driver.Connector) *DB {\n\tc = swapped(c)"},
		{"*_test.go", `\b([\w.\[\]]+)\.ci\.\((\*\w+)\)`, "unwrapped($1.ci).($2)"},
		{"sql_test.go", `db\.Driver\(\)\.\(\*fakeDriver\)`, "fdriver.(*fakeDriver)"},
		{"sql_test.go", `\b(raw|dc)\.\((\*fakeConn)\)`, "unwrapped($1).($2)"},
		{"sql_test.go", `(?m)^\t"internal/(race|testenv)"\n`, ""},
		{"convert_test.go", `(?m)^\t"internal/asan"\n`, ""},
	} {
		if err := e.apply(pkg); err != nil {
			return "", err
		}
	}
	// Below managedpg's own path, it may use what lies in its folder "internal".
	mod := fmt.Sprintf("module github.com/managedpg/managedpg/suite\n\ngo 1.25.0\n\nrequire github.com/managedpg/managedpg v0.0.0\n"+
		"replace github.com/managedpg/managedpg => %s\n", repo)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o644); err != nil {
		return "", err
	}
	if err := add(pkg, "sql.go.txt"); err != nil {
		return "", err
	}
	if err := add(pkg, "sql_test.go.txt"); err != nil {
		return "", err
	}
	return pkg, nil
}

// copyModule copies a module that the repository depends on, edited, and makes it depend on the repository in its turn.
func copyModule(path, dir, repo string, edits ...edit) error {
	from, err := output("", "go", "list", "-m", "-f", "{{.Dir}}", path)
	if err != nil {
		return err
	}
	if _, err := output("", "cp", "-R", from+"/.", dir); err != nil {
		return err
	}
	if _, err := output("", "chmod", "-R", "u+w", dir); err != nil {
		return err
	}
	for _, e := range edits {
		if err := e.apply(dir); err != nil {
			return err
		}
	}
	if _, err := output(dir, "go", "mod", "edit", "-go=1.25.0", "-require=github.com/managedpg/managedpg@v0.0.0",
		"-replace=github.com/managedpg/managedpg="+repo); err != nil {
		return err
	}
	return nil
}

// add puts a file of swap's into a folder.
func add(dir, name string) error {
	text, err := swap.ReadFile("swap/" + name)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "swap_"+strings.TrimSuffix(name, ".txt")), text, 0o644)
}

func pgxEnv(c *pgtest.Cluster, _ string) ([]string, error) {
	if err := c.Exec("DROP DATABASE IF EXISTS pgx_test WITH (FORCE)", "CREATE DATABASE pgx_test"); err != nil {
		return nil, err
	}
	admin, err := sql.Open("pgx", c.DSNFor("pgx_test"))
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	_, err = admin.Exec("CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE DOMAIN uint64 AS numeric(20,0)")
	return []string{"PGX_TEST_DATABASE=" + c.DSNFor("pgx_test")}, err
}

// hba is pg_hba.conf as lib/pq's own servers have it.
var hba = []string{
	"host all pqgomd5 all md5", "host all pqgopassword all password", "host all pqgoscram all scram-sha-256",
	"hostnossl all pqgossl,pqgosslcert all reject", "hostssl all pqgossl all trust", "hostssl all pqgosslcert all cert",
	"local all all trust", "host all all all trust",
}

// pqEnv sets the server up as lib/pq's own are in its continuous integration, with its certificates.
func pqEnv(c *pgtest.Cluster, pkg string) ([]string, error) {
	certificates := filepath.Join(pkg, "testdata", "ssl")
	if err := c.Exec("CREATE ROLE pqgo LOGIN SUPERUSER", "CREATE DATABASE pqgo OWNER pqgo", "CREATE ROLE pqgossl LOGIN", "CREATE ROLE pqgosslcert LOGIN",
		"CREATE ROLE pqgopassword LOGIN PASSWORD 'wordpass'", "CREATE ROLE pqgoscram LOGIN PASSWORD 'wordpass'", "CREATE ROLE pqgomd5 LOGIN PASSWORD 'wordpass'",
		"UPDATE pg_authid SET rolpassword = 'md5' || md5('wordpasspqgomd5') WHERE rolname = 'pqgomd5'", "ALTER SYSTEM SET ssl = on",
		"ALTER SYSTEM SET ssl_ca_file = '"+filepath.Join(certificates, "root.crt")+"'", "ALTER SYSTEM SET ssl_cert_file = '"+filepath.Join(certificates, "server.crt")+"'",
		"ALTER SYSTEM SET ssl_key_file = '"+filepath.Join(certificates, "server.key")+"'"); err != nil {
		return nil, err
	}
	if err := forServer(pkg, filepath.Join(certificates, "server.key")); err != nil {
		return nil, err
	}
	return []string{"PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", c.Port()), "PGUSER=pqgo", "PGDATABASE=pqgo", "PGSSLMODE=disable", "DB_BASE_DRIVER=pq", "DB_FAILOVER_TIMEOUT=500ms"}, c.Restart()
}

// forServer lets the server into a folder of ours, and makes a key in it one that it takes: its own, and nobody else's to read.
func forServer(dir, key string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(key, 0o600); err != nil || os.Geteuid() != 0 {
		return err
	}
	_, err := output("", "chown", "postgres", key)
	return err
}
