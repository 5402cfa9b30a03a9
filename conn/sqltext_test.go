package conn

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
		"ROLLBACK TO a; INSERT INTO t VALUES (1)":           false, // still inside
		"ROLLBACK TO SAVEPOINT a; SELECT 1":                 false,
		"ROLLBACK WORK TO SAVEPOINT a; SELECT 1":            false,
		"ROLLBACK TRANSACTION TO a; SELECT 1":               false,
		"rollback to a; rollback; insert into t values (1)": true,
		"PREPARE TRANSACTION 'x'":                           true,
		"prepare transaction 'x'":                           true,
		"PREPARE s AS SELECT 1":                             false,
		"SAVEPOINT a":                                       false,
		"BEGIN":                                             false,
		"COMMITTED":                                         false,
		"commit_log":                                        false,
		"SELECT 'x'; COMMIT AND CHAIN":                      true,
		"INSERT INTO t VALUES ('; COMMIT')":                 true, // errs on the side of unknown
		"SELECT '--' FROM t WHERE end":                      true, // so here
		"DO $$ BEGIN COMMIT; END $$":                        true,
		"INSERT INTO t VALUES ('é;'); /* ä */ commit /* ö */ ; --ü": true,
		"INSERT INTO t SELECT 1 " + strings.Repeat("/* x */", 50):   false,
		"\f\v\r\nCOMMIT": true,
		"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x -- end\n": true,
	} {
		if got := mayCommit(text); got != want {
			t.Errorf("mayCommit(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestTxAfter(t *testing.T) {
	for _, test := range []struct {
		text         string
		before, want txState
	}{
		{"SELECT 1", txNone, txNone},
		{"SELECT 1", txReadWrite, txReadWrite},
		{"BEGIN", txNone, txReadWrite},
		{"begin", txNone, txReadWrite},
		{"START TRANSACTION READ ONLY", txNone, txReadWrite},
		{"BEGIN", txReadOnly, txReadOnly}, // a warning, and the transaction goes on
		{"-- a\nBEGIN", txNone, txReadWrite},
		{"SELECT 1; BEGIN; SELECT 2", txNone, txReadWrite},
		{"BEGIN; INSERT INTO t VALUES (1); COMMIT", txNone, txNone},
		{"COMMIT", txReadWrite, txNone},
		{"END", txReadWrite, txNone},
		{"END WORK", txReadWrite, txNone},
		{"COMMIT AND CHAIN", txReadWrite, txReadWrite},
		{"COMMIT WORK AND CHAIN", txReadWrite, txReadWrite},
		{"COMMIT TRANSACTION AND NO CHAIN", txReadWrite, txNone},
		{"COMMIT; BEGIN", txReadWrite, txReadWrite},
		{"ROLLBACK", txReadWrite, txNone},
		{"ABORT", txReadWrite, txNone},
		{"ROLLBACK AND CHAIN", txReadWrite, txReadWrite},
		{"ROLLBACK TO a", txReadWrite, txReadWrite},
		{"ROLLBACK WORK TO SAVEPOINT a", txReadWrite, txReadWrite},
		{"PREPARE TRANSACTION 'x'", txReadWrite, txNone},
		{"PREPARE s AS SELECT 1", txReadWrite, txReadWrite},
		{"COMMIT PREPARED 'x'", txNone, txNone},
		{"BEGIN", txUnclear, txReadWrite},
		{"ROLLBACK", txUnclear, txNone},
		{"BEGIN; SET LOCAL a = 'b'", txNone, txReadWrite},
		{"INSERT INTO t VALUES ('; begin')", txNone, txUnclear}, // what may be none isn't taken for one
		{"INSERT INTO t VALUES ('; begin')", txReadWrite, txReadWrite},
		{"INSERT INTO t VALUES ('; end')", txReadWrite, txUnclear},
		{"INSERT INTO t VALUES ('; end')", txNone, txNone},
		{"-- begin\nSELECT 1;", txNone, txUnclear},
		{"SELECT 1; -- begin", txNone, txUnclear},
		{"CREATE PROCEDURE p() BEGIN ATOMIC SELECT 1; END", txReadWrite, txUnclear},
	} {
		if got := txAfter(test.text, test.before); got != test.want {
			t.Errorf("txAfter(%q, %v) = %v, want %v", test.text, test.before, got, test.want)
		}
		if changed := test.want != test.before; changed && !touchesTx(test.text) {
			t.Errorf("touchesTx(%q) = false, though it ends in another transaction state", test.text)
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
		if got := touchesTx(text); got != want {
			t.Errorf("touchesTx(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestForgetsStatements(t *testing.T) {
	for text, want := range map[string]bool{
		"":                           false,
		"SELECT 1":                   false,
		"DELETE FROM all":            false,
		"DISCARD ALL":                true,
		"discard all;":               true,
		"\n discard\tALL":            true,
		"DISCARD PLANS":              false,
		"DISCARD TEMP":               false,
		"DEALLOCATE ALL":             true,
		"deallocate prepare all":     true,
		"DEALLOCATE PREPARE s":       false,
		"DEALLOCATE s":               false,
		"DISCARD":                    false,
		"DEALLOCATE":                 false,
		"dealloc":                    false,
		"DEALLOCATE allowed":         false,
		"-- a\nDEALLOCATE ALL":       true,
		"/* a */ DISCARD ALL":        true,
		"/* a /* b */ */DISCARD ALL": true,
	} {
		if got := forgetsStatements(text); got != want {
			t.Errorf("forgetsStatements(%q) = %v, want %v", text, got, want)
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
		if got := isCopy(text); got != want {
			t.Errorf("isCopy(%q) = %v, want %v", text, got, want)
		}
	}
}

// What a text tells must never crash on one, whatever it holds.
func FuzzText(f *testing.F) {
	f.Add("/* a */ COMMIT; -- b\n ROLLBACK TO SAVEPOINT a; PREPARE TRANSACTION 'x'")
	f.Add("é\x00/*/**/DISCARD ALL")
	f.Fuzz(func(t *testing.T, text string) {
		mayCommit(text)
		forgetsStatements(text)
		isCopy(text)
		txAfter(text, txNone)
		if !mayCommit(text + "; COMMIT") {
			t.Errorf("a COMMIT behind %q goes unseen", text)
		}
	})
}
