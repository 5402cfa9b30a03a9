package sqltext

import (
	"strings"
	"testing"
)

func TestMayCommit(t *testing.T) {
	for text, want := range map[string]bool{
		"":                                   false,
		"SELECT 1":                           false,
		"INSERT INTO commit VALUES (1)":      false,
		"UPDATE t SET commit = 1":            false,
		"COMMIT":                             true,
		"commit":                             true,
		"  \n\tCommit  ;":                    true,
		"END":                                true,
		"END TRANSACTION":                    true,
		"COMMIT PREPARED 'x'":                true,
		"INSERT INTO t VALUES (1); COMMIT":   true,
		"INSERT INTO t VALUES (1);COMMIT;":   true,
		"/* a */ COMMIT":                     true,
		"/* a */COMMIT":                      true,
		"-- a\nCOMMIT":                       true,
		"SELECT 1; -- a\nCOMMIT":             true,
		"SELECT CASE WHEN true THEN 1 END":   false, // no statement starts there
		"SELECT 1; END":                      true,
		"ROLLBACK":                           false,
		"ABORT":                              false,
		"ROLLBACK;":                          false,
		"ROLLBACK; INSERT INTO t VALUES (1)": true, // outside of the transaction by then
		"ABORT;INSERT INTO t VALUES (1)":     true,
		"ROLLBACK TO a; INSERT INTO t VALUES (1)":                     false, // still inside
		"ROLLBACK TO SAVEPOINT a; SELECT 1":                           false,
		"ROLLBACK WORK TO SAVEPOINT a; SELECT 1":                      false,
		"ROLLBACK TRANSACTION TO a; SELECT 1":                         false,
		"rollback to a; rollback; insert into t values (1)":           true,
		"PREPARE TRANSACTION 'x'":                                     true,
		"prepare transaction 'x'":                                     true,
		"PREPARE s AS SELECT 1":                                       false,
		"SAVEPOINT a":                                                 false,
		"BEGIN":                                                       false,
		"COMMITTED":                                                   false,
		"commit_log":                                                  false,
		"SELECT 'x'; COMMIT AND CHAIN":                                true,
		"INSERT INTO t VALUES ('; COMMIT')":                           true, // errs on the side of unknown
		"SELECT '--' FROM t WHERE end":                                false,
		`SELECT '\' --' FROM t WHERE end`:                             true, // so here
		"DO $$ BEGIN COMMIT; END $$":                                  true, // PostgreSQL wouldn't let it, another server may
		"DO $$ BEGIN UPDATE t SET a = 1; END $$":                      false,
		"DO $$ BEGIN UPDATE t SET a = 1; END $$; COMMIT":              true,
		"DO $$ BEGIN UPDATE t SET a = 1; END $$; END":                 true,
		"INSERT INTO t VALUES ('é;'); /* ä */ commit /* ö */ ; --ü":   true,
		"INSERT INTO t SELECT 1 " + strings.Repeat("/* x */", 50):     false,
		"\f\v\r\nCOMMIT":                                              true,
		"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x -- end\n": true,
	} {
		if got := MayCommit(text); got != want {
			t.Errorf("MayCommit(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestMayEnd(t *testing.T) {
	for text, want := range map[string]bool{
		"":                           false,
		"SELECT 1":                   false,
		"SELECT 1; END":              true,
		"ROLLBACK":                   true,
		"ROLLBACK TO SAVEPOINT a":    false,
		"-- a\rCOMMIT\nAND CHAIN":    true, // the server's comment ends there
		"INSERT INTO t VALUES (';')": false,
		// A block's END is none of a transaction's.
		"DO $$ BEGIN UPDATE t SET a = 1; END $$":                                             false,
		"DO $$ BEGIN UPDATE t SET committed = 1; END $$ LANGUAGE plpgsql;":                   false,
		"DO LANGUAGE plpgsql $b$ BEGIN PERFORM $$x$$; END; $b$":                              false,
		"DO 'BEGIN UPDATE t SET a = ''b''; END'":                                             false,
		"/* a ' */ DO -- $$\n$$ BEGIN PERFORM 1; END $$":                                     false,
		"do e'begin perform \\'a\\'; end'":                                                   false,
		"SELECT \"a;end\"; SELECT 1":                                                         false,
		"CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN PERFORM 1; END; $f$": false,
		// What commits in it may do so, outside of a transaction or on another server than PostgreSQL.
		"DO $$ BEGIN UPDATE t SET a = 1; COMMIT; END $$":                  true,
		"DO $$ BEGIN PERFORM 1; ROLLBACK; END $$":                         true,
		"DO 'BEGIN PERFORM 1; COMMIT; END'":                               true,
		"DO $$ BEGIN PERFORM 1; END $$; END":                              true,
		"DO $$ BEGIN PERFORM 1; END $$;END;DO $$ BEGIN PERFORM 1; END $$": true,
		// Where it isn't certain what is inside, all of it counts.
		`SELECT '\'; END; --'`:                      true,
		`SELECT 'a', '\'; END; --'`:                 true,
		"SELECT 'a; END":                            true,
		"DO $$ BEGIN PERFORM 1; END $":              true,
		"DO $a$ BEGIN PERFORM 1; END $b$":           true,
		"SELECT 1$$; END; $$":                       true,
		"SELECT $1$$; END; $$":                      true,
		"SELECT a$$; END; $$":                       true, // a$$ is a name
		"SELECT $1a$; END; $1a$":                    true,
		"SELECT $a b$; END; $a b$":                  true,
		"SELECT 0x1F$$; END; $$":                    true,
		"-- a\rSELECT $$\nDO $$; END; SELECT $$ $$": true,
		"SELECT $$ /* $$; END; SELECT $$ */ $$":     true,
		"SELECT '/*'; END; SELECT '*/'":             true,
		"SELECT '--'; END":                          true,
		"SELECT \"'\"; END; SELECT \"'\"":           true,
		"SELECT E'a\\\\'; END; SELECT ''":           true,
		"SELECT E''; END":                           true,
		"SELECT /* /* */ ' */ 1; END; SELECT '":     true,
		"SELECT /*/ ' */ 1; END; SELECT '":          true,
	} {
		if got := MayEnd(text); got != want {
			t.Errorf("MayEnd(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestTxAfter(t *testing.T) {
	for _, test := range []struct {
		text         string
		before, want Tx
	}{
		{"SELECT 1", TxNone, TxNone},
		{"SELECT 1", TxReadWrite, TxReadWrite},
		{"BEGIN", TxNone, TxReadWrite},
		{"begin", TxNone, TxReadWrite},
		{"START TRANSACTION READ ONLY", TxNone, TxReadWrite},
		{"BEGIN", TxReadOnly, TxReadOnly}, // a warning, and the transaction goes on
		{"-- a\nBEGIN", TxNone, TxReadWrite},
		{"SELECT 1; BEGIN; SELECT 2", TxNone, TxReadWrite},
		{"BEGIN; INSERT INTO t VALUES (1); COMMIT", TxNone, TxNone},
		{"COMMIT", TxReadWrite, TxNone},
		{"END", TxReadWrite, TxNone},
		{"END WORK", TxReadWrite, TxNone},
		{"COMMIT AND CHAIN", TxReadWrite, TxReadWrite},
		{"COMMIT WORK AND CHAIN", TxReadWrite, TxReadWrite},
		{"COMMIT TRANSACTION AND NO CHAIN", TxReadWrite, TxNone},
		{"COMMIT; BEGIN", TxReadWrite, TxReadWrite},
		{"ROLLBACK", TxReadWrite, TxNone},
		{"ABORT", TxReadWrite, TxNone},
		{"ROLLBACK AND CHAIN", TxReadWrite, TxReadWrite},
		{"ROLLBACK TO a", TxReadWrite, TxReadWrite},
		{"ROLLBACK WORK TO SAVEPOINT a", TxReadWrite, TxReadWrite},
		{"PREPARE TRANSACTION 'x'", TxReadWrite, TxNone},
		{"PREPARE s AS SELECT 1", TxReadWrite, TxReadWrite},
		{"COMMIT PREPARED 'x'", TxNone, TxNone},
		{"BEGIN", TxUnclear, TxReadWrite},
		{"ROLLBACK", TxUnclear, TxNone},
		{"BEGIN; SET LOCAL a = 'b'", TxNone, TxReadWrite},
		{"INSERT INTO t VALUES ('; begin')", TxNone, TxNone},
		{"INSERT INTO t VALUES ('; end')", TxReadWrite, TxReadWrite},
		{`INSERT INTO t VALUES ('\'; begin')`, TxNone, TxUnclear}, // what may be none isn't taken for one
		{`INSERT INTO t VALUES ('\'; begin')`, TxReadWrite, TxReadWrite},
		{`INSERT INTO t VALUES ('\'; end')`, TxReadWrite, TxUnclear},
		{`INSERT INTO t VALUES ('\'; end')`, TxNone, TxNone},
		{"INSERT INTO t VALUES ('; commit')", TxReadWrite, TxUnclear},
		{"DO $$ BEGIN PERFORM 1; END $$", TxNone, TxNone},
		{"DO $$ BEGIN PERFORM 1; COMMIT; END $$", TxNone, TxNone},
		{"DO $$ BEGIN PERFORM 1; END $$", TxReadWrite, TxReadWrite},
		{"DO $$ BEGIN PERFORM 1; END $$; COMMIT", TxReadWrite, TxUnclear},
		{"-- begin\nSELECT 1;", TxNone, TxUnclear},
		{"SELECT 1; -- begin", TxNone, TxUnclear},
		{"CREATE PROCEDURE p() BEGIN ATOMIC SELECT 1; END", TxReadWrite, TxUnclear},
	} {
		if got := TxAfter(test.text, test.before); got != test.want {
			t.Errorf("TxAfter(%q, %v) = %v, want %v", test.text, test.before, got, test.want)
		}
		if changed := test.want != test.before; changed && !TouchesTx(test.text) {
			t.Errorf("TouchesTx(%q) = false, though it ends in another transaction state", test.text)
		}
	}
}

func TestTouchesTx(t *testing.T) {
	for text, want := range map[string]bool{
		"SELECT 1":                  false,
		"INSERT INTO t VALUES ($1)": false,
		"  update t set a = 1":      false,
		"PREPARE s AS SELECT 1":     true, // looked at more closely then
		"rollback":                  true,
		"(SELECT 1)":                true,
		"/* a */ SELECT 1":          false,
		"/* a */ -- b\n BEGIN":      true,
		"SELECT 1; SELECT 2":        true,
	} {
		if got := TouchesTx(text); got != want {
			t.Errorf("TouchesTx(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestMayWrite(t *testing.T) {
	for text, want := range map[string]bool{
		"SELECT 1":                     false,
		" -- why\n select 1":           false,
		"WITH a AS (SELECT 1) TABLE a": false,
		"SHOW in_hot_standby":          false,
		"INSERT INTO t VALUES (1)":     true,
		"delete from t":                true,
		"WITH a AS (insert into t VALUES (1) RETURNING 1) TABLE a": true,
		"SELECT 1; UPDATE t SET a = 1":                             true,
		"EXPLAIN ANALYZE DELETE FROM t":                            true,
		"EXPLAIN ANALYZE CREATE TABLE u AS TABLE t":                true,
		"SELECT * INTO u FROM t":                                   true,
		"SELECT 1; TRUNCATE t":                                     true,
		"SELECT 1;":                                                false,
		"SELECT * FROM t FOR UPDATE":                               true, // refused on a standby
		"DO $$ BEGIN PERFORM f(); END $$":                          true,
		"CALL f()":                                                 true,
		"NOTIFY a":                                                 true,
		"":                                                         true,
	} {
		if got := MayWrite(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestForgetsStatements(t *testing.T) {
	for text, want := range map[string]bool{
		"":                          false,
		"SELECT 1":                  false,
		"DELETE FROM all":           false,
		"DISCARD ALL":               true,
		"discard all;":              true,
		"\n discard\tALL":           true,
		"DISCARD PLANS":             false,
		"DISCARD TEMP":              false,
		"DEALLOCATE ALL":            true,
		"deallocate prepare all":    true,
		"DEALLOCATE PREPARE s":      false,
		"DEALLOCATE s":              false,
		"DISCARD":                   false,
		"DEALLOCATE":                false,
		"dealloc":                   false,
		"DEALLOCATE allowed":        true, // a doubt costs a round trip
		"RESET ALL; DEALLOCATE ALL": true,
		"SELECT 'DEALLOCATE ALL'":   false,
		"DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$": true,
		"-- a\nDEALLOCATE ALL":                         true,
		"/* a */ DISCARD ALL":                          true,
		"/* a /* b */ */DISCARD ALL":                   true,
	} {
		if got := ForgetsStatements(text); got != want {
			t.Errorf("ForgetsStatements(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestIsCopy(t *testing.T) {
	for text, want := range map[string]bool{
		"SELECT 1":                              false,
		"COPY t FROM STDIN":                     true,
		"copy t from stdin":                     true,
		"  \n COPY t FROM STDIN":                true,
		"-- a\n-- b\n COPY t FROM STDIN":        true,
		"/* a */ COPY t FROM STDIN":             true,
		"/* a /* b */ c */ -- d\nCOPY t (a, b)": true,
		"COPYRIGHT":                             true,
		"-- name: Get\nSELECT 1":                false,
		"/* route: / */ SELECT 1":               false,
		"/* a /* b */ c */ -- d\nSELECT 1":      true,
		"(SELECT 1)":                            false,
		"":                                      false,
		"-- a":                                  false,
		"/* a":                                  false,
	} {
		if got := IsCopy(text); got != want {
			t.Errorf("IsCopy(%q) = %v, want %v", text, got, want)
		}
	}
}

// What a text tells must never crash on one, whatever it holds.
func FuzzText(f *testing.F) {
	f.Add("/* a */ COMMIT; -- b\n ROLLBACK TO SAVEPOINT a; PREPARE TRANSACTION 'x'")
	f.Add("é\x00/*/**/DISCARD ALL")
	f.Fuzz(func(t *testing.T, text string) {
		MayCommit(text)
		MayEnd(text)
		ForgetsStatements(text)
		IsCopy(text)
		TxAfter(text, TxNone)
		if !MayCommit(text+"; COMMIT") || !MayEnd(text+"; END") {
			t.Errorf("a COMMIT or END behind %q goes unseen", text)
		}
	})
}
