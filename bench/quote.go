package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// quoting are the documents that quote the results in a table of their own.
var quoting = []string{"../README.md", "../docs/figures.md"}

const quotedHead = "| | by database/sql | by the driver (`pool_size`) | sqlmw, no-op | otelsql, no-op | pgxpool |\n|---|---|---|---|---|---|\n"

// quoted are the rows of that table, each from one section and workload of the results. One of a section that isn't there is left out.
var quoted = []struct {
	name, section, workload string
	subjects                []string
}{
	{"Exec, without leak detection", "PostgreSQL", "Exec", quiet},
	{"prepared QueryRow, without leak detection", "PostgreSQL", "prepared QueryRow", quiet},
	{"Query of 1000 rows, without leak detection", "PostgreSQL", thousand, quiet},
	{"Exec, everything at its default", "PostgreSQL", "Exec", usual[:2]},
	{"the same, client and server on the same cores", "PostgreSQL, unpinned", "Exec", usual},
	{"QueryRow, everything at its default, on the same cores", "PostgreSQL, unpinned", "QueryRow", usual},
}

var (
	quiet = []string{"by database/sql", "by the driver", "sqlmw", "otelsql", "pgxpool"}
	usual = []string{"by database/sql, defaults", "by the driver, defaults", "sqlmw", "otelsql", "pgxpool"}
)

// quote puts the ratios of the results into the table of a text.
func quote(text, results string) (string, error) {
	before, rest, found := strings.Cut(text, quotedHead)
	if !found {
		return "", fmt.Errorf("no table that begins with %q", quotedHead)
	}
	_, after, _ := strings.Cut(rest, "\n\n")
	ratios := ratiosOf(results)
	var table strings.Builder
	for _, row := range quoted {
		cells := make([]string, len(quiet))
		known := false
		for i, subject := range row.subjects {
			cells[i] = ratios[row.section+": "+row.workload+": "+subject]
			known = known || cells[i] != ""
		}
		if known {
			fmt.Fprintf(&table, "| %s |", row.name)
			for _, cell := range cells {
				fmt.Fprintf(&table, " %s|", strings.TrimLeft(cell+" ", " "))
			}
			fmt.Fprintln(&table)
		}
	}
	return before + quotedHead + table.String() + "\n" + after, nil
}

// ratiosOf are a report's ratios by "section: workload: subject".
func ratiosOf(results string) map[string]string {
	ratios := make(map[string]string)
	section := ""
	for lines := bufio.NewScanner(strings.NewReader(results)); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "## "); ok {
			section = name
		}
		const workload, subject, ratio = 1, 2, 6
		if cells := strings.Split(lines.Text(), "|"); len(cells) > ratio {
			key := section + ": " + strings.TrimSpace(cells[workload]) + ": " + strings.TrimSpace(cells[subject])
			if first, _, ok := strings.Cut(strings.TrimSpace(cells[ratio]), " "); ok {
				ratios[key] = first
			}
		}
	}
	return ratios
}

// quoteResults rewrites the tables of the documents.
func quoteResults() error {
	results, err := os.ReadFile("RESULTS.md")
	if err != nil {
		return err
	}
	for _, path := range quoting {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		with, err := quote(string(text), string(results))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := os.WriteFile(path, []byte(with), 0o644); err != nil {
			return err
		}
	}
	return nil
}
