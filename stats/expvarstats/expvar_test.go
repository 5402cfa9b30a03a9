package expvarstats

import (
	"database/sql"
	"encoding/json"
	"expvar"
	"testing"

	_ "github.com/managedpg/managedpg"
)

func TestVariable(t *testing.T) {
	for _, name := range []string{"orders", "<script>"} {
		db, err := sql.Open("managedpg", "postgres://127.0.0.1:1/db?pool_size=3&pool_name="+name)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
	}
	var pools map[string]struct {
		Size int
	}
	if err := json.Unmarshal([]byte(expvar.Get("managedpg").String()), &pools); err != nil {
		t.Fatal(err)
	}
	if len(pools) != 2 || pools["orders"].Size != 3 || pools["<script>"].Size != 3 {
		t.Errorf("%+v", pools)
	}
}
