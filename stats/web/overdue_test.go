package web

import (
	"context"
	"database/sql"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// lock leaves a transaction open that holds a lock on the table orders.
func lock(ctx context.Context, t *testing.T, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(ctx, "LOCK TABLE orders"); err != nil {
		t.Fatal(err)
	}
	return tx
}

func hasty(ctx context.Context, db *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := db.ExecContext(ctx, "SELECT count(*) FROM orders")
	return err
}

// Calls that wait for somebody else's lock until their deadline: the page says which lines', that the server is up, and what to ask it. The
// answer names the process of ours that holds the lock, which the page has with the line of code.
func TestBlockedCallsOnThePage(t *testing.T) {
	db := open(t, pgtest.Database(t)+"&pool_size=8", "orders")
	ctx, h := t.Context(), Handler()
	if _, err := db.ExecContext(ctx, "CREATE TABLE orders (id int)"); err != nil {
		t.Fatal(err)
	}
	tx := lock(ctx, t, db)
	defer tx.Rollback()
	var own int
	if err := tx.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&own); err != nil {
		t.Fatal(err)
	}
	var callers sync.WaitGroup
	for range 3 {
		callers.Go(func() {
			if err := hasty(ctx, db); err == nil {
				t.Error("a call got by the lock")
			}
		})
	}
	eventually(t, "the query names who blocks whom", func() bool {
		var waiting, blocking int
		var query, state, open, last string
		err := db.QueryRowContext(ctx, strings.Replace(whoBlocksWhom, " ORDER BY", " WHERE waiting.datname = current_database() ORDER BY", 1)).
			Scan(&waiting, &query, &blocking, &state, &open, &last)
		return err == nil && blocking == own && state == "idle in transaction" && strings.Contains(query, "FROM orders")
	})
	callers.Wait()
	html := fetch(t, h, "/", "")
	for _, want := range []string{
		`<p class="story (warn|bad)"><b>Calls run out of time: 3 in the last 5m, the last one at [0-9:]+, 3 at overdue_test\.go:[0-9]+ web\.hasty\.</b> ` +
			`(The server is up, a probe took [^:]* at [0-9:]+: .*)?Ask it who blocks whom\..* <code class="query">SELECT waiting\.pid, .*;</code>`,
		`<td class="n warn" data-name="out of time">3</td>`, `web\.lock</span>`,
	} {
		if !regexp.MustCompile(want).MatchString(html) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

// Who reads the page and who reads the documentation ask the same.
func TestDocumentationAsksTheSame(t *testing.T) {
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	if words := strings.Join(strings.Fields(string(text)), " "); !strings.Contains(words, whoBlocksWhom) {
		t.Errorf("docs/troubleshooting.md lacks %s", whoBlocksWhom)
	}
}
