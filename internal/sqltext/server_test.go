package sqltext

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/managedpg/managedpg/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// No text ends a transaction on a real server of which MayEnd says that it doesn't, whatever literals and comments are in it.
func TestServerEndsNoTransactionUnforeseen(t *testing.T) {
	ctx := context.Background()
	c, err := pgconn.Connect(ctx, pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	// Pieces of which a statement may be made, and what confuses a reader of it.
	values := []string{"1", "'a'", "''", "E'a\\'b'", "'\\'", "$$a$$", "$b$;$b$", "$b$ $$ $b$", "'; END; '", `1 AS "a;'"`, `1 AS "$$"`, "$$ ; END $$",
		"1$$", "a$$", "$a", "1e", "U&'\\0061'", "B'1'", "'--'", "'/*'", "$$*/$$", "E''", "E'\\\\'", "'a'\n'b'", "E'a'\n'\\'b'"}
	gaps := []string{" ", "\n", "\r", " /* ' */ ", " /* /* */ $$ */ ", " -- '\n", " -- $$\r", " /*/ */", ";", "; "}
	ends := []string{"END", "COMMIT", "ROLLBACK", "END;", "SELECT 1", "DO $$ BEGIN PERFORM 1; END $$", "DO 'BEGIN END'", "SAVEPOINT s",
		"ROLLBACK TO s", "COMMIT AND CHAIN", "DO $a$ BEGIN PERFORM $$x;$$; END; $a$"}
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	ran, ended := 0, 0
	for range 6000 {
		var b strings.Builder
		for range 1 + random.IntN(4) {
			if random.IntN(2) == 0 {
				b.WriteString("SELECT" + pick(gaps) + pick(values))
			} else {
				b.WriteString(pick(ends))
			}
			b.WriteString(pick(gaps))
		}
		text := b.String()
		conforming := []string{"on", "off"}[random.IntN(2)]
		id := ask(t, c, "ROLLBACK; SET standard_conforming_strings = "+conforming+"; SET escape_string_warning = off; BEGIN; SELECT pg_current_xact_id()")
		if _, err := c.Exec(ctx, text).ReadAll(); err == nil {
			ran++
		}
		over := c.TxStatus() == 'I' || c.TxStatus() == 'T' && ask(t, c, "SELECT pg_current_xact_id_if_assigned()") != id
		if over {
			ended++
		}
		if over && !MayEnd(text) {
			t.Errorf("MayEnd(%q) = false, and the server ended the transaction (standard_conforming_strings=%s)", text, conforming)
		}
	}
	if ran < 500 || ended < 500 {
		t.Errorf("%d texts ran without an error, and %d ended the transaction: too few to tell", ran, ended)
	}
	t.Logf("%d texts ran without an error, %d ended the transaction", ran, ended)
}

func ask(t *testing.T, c *pgconn.PgConn, query string) string {
	t.Helper()
	results, err := c.Exec(context.Background(), query).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return string(results[len(results)-1].Rows[0][0])
}
