package managedpg

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/managedpg/managedpg/internal/dsn"
)

// FuzzParseDSN: whatever the DSN, no panic; its password, once it can be told to be one, is shown by neither an error nor
// the Config; and a Config's DSN gives that Config back.
func FuzzParseDSN(f *testing.F) {
	setenv(f, nil)
	f.Add(withSecrets)
	for _, dsn := range []string{
		"",
		"postgres://ann:Sekret%2F1@db:5433,[::1]:1/app?pool_size=5&max_overflow=-1&pool_timeout=1.5&target_session_attrs=any",
		"postgresql://ann:Sekret1@%2Frun%2Fpostgresql/app?base_driver=pq&application_name=a+b&ssl=true",
		`host = 'a,b' port=1,2 user=ann password='Sek\'ret\\1' dbname = app options='-c a=b' service=x`,
		"host=a,b hostaddr=10.0.0.1,10.0.0.2 base_driver=pq password=Sekret1 connect_timeout=-1 tcp_user_timeout=100",
		"host=a failover_urls='postgres://u:Sekret1@b/x,postgres://c,d/x' failover_urls='host=e password=Sekret1'",
		"postgres://ann:Sek@ret1@db/app", "postgres://ann:12/Sekret1@db/app", "host=db password=Sekret1 x", "mysql://a:Sekret1@b/c",
		"host=db password=Sekret1 pool_sise=5 leak_threshold=0 sslmode=x", "host=db password=Sekret1 base_driver=pq client_encoding=Sekret1",
		"pool_name='#2' leak_reclaim_after=1h health_check_interval=250ms keepalives_count=3 load_balance_hosts=disable",
	} {
		f.Add(dsn)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		if strings.Contains(dsn, "/dev") || strings.Contains(dsn, "/proc") || strings.Contains(dsn, "%") && strings.Contains(dsn, "ssl") {
			t.Skip("certificates and services are read from files, and some never end")
		}
		c, err := ParseDSN(dsn)
		shown := fmt.Sprint(err)
		if err == nil {
			shown = fmt.Sprintf("%v %+v %#v %s", c, c, *c, c.PoolName)
		}
		for _, password := range passwordsOf(dsn) {
			if strings.Contains(shown, password) {
				t.Errorf("the password %q of %q is shown:\n%s", password, dsn, shown)
			}
		}
		if err != nil {
			return
		}
		again, err := ParseDSN(c.DSN())
		if err != nil {
			t.Fatalf("%q gives %q, which is refused: %v", dsn, c.DSN(), err)
		}
		if !reflect.DeepEqual(again, c) {
			t.Errorf("%q gives %q, and that %q", dsn, c.DSN(), again.DSN())
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%q is accepted, but Validate says: %v", dsn, err)
		}
	})
}

// passwordsOf are those of a DSN that can be looked for elsewhere: long enough, and nowhere else in the DSN.
func passwordsOf(text string) []string {
	var all []string
	s, _ := reader.Split(text, false)
	for _, own := range s {
		switch {
		case own.Key == "failover_urls":
			for _, further := range dsn.SplitList(own.Value) {
				all = append(all, passwordsOf(further)...)
			}
		case dsn.Secret(own.Key) && telling.MatchString(own.Value):
			all = append(all, own.Value)
		}
	}
	if strings.Contains(text, ":Sekret1@") { // whether or not it can be taken apart
		all = append(all, "Sekret1")
	}
	return slices.DeleteFunc(all, func(password string) bool { return strings.Count(text, password) != 1 })
}

var telling = regexp.MustCompile(`^[A-Z][A-Za-z]{3,}[0-9]+$`)
