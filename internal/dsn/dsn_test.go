package dsn

import (
	"reflect"
	"strings"
	"testing"
)

var reader = Reader{Own: []string{"pool_size", "failover_urls"}, Lists: []string{"failover_urls"}}

// What is written is read back, whatever the form that it came in.
func TestTextAndBack(t *testing.T) {
	for _, text := range []string{
		`host=db port=5433 user='a b' password='it\'s \\ here' options=''`,
		"postgres://a%40n:p%2Fw%3A%40%25@[::1]:5433,db/my%20app?application_name=a%26b&pool_size=5",
		"failover_urls=a failover_urls='postgres://u:p@b/x' failover_urls=a",
		"",
	} {
		s, err := reader.Split(text, false)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		again, err := reader.Split(s.String(), false)
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%s\nwas read as %q,\nand back as %q, %v", text, s, again, err)
		}
	}
}

func TestRepeatedKeys(t *testing.T) {
	s, err := reader.Split("host=a pool_size=1 failover_urls=x host=b pool_size=2 failover_urls=y", false)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.String(), "host=b pool_size=2 failover_urls=x failover_urls=y"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRedacted(t *testing.T) {
	s, err := reader.Split("host=db password=sekret sslpassword=sekret options=sekret what.ever=sekret sslcert=sekret user=ann", false)
	if err != nil {
		t.Fatal(err)
	}
	shown := s.Redacted().String()
	if strings.Contains(shown, "sekret") || !strings.Contains(shown, "host=db") || !strings.Contains(shown, "user=ann") {
		t.Errorf("it shows %s", shown)
	}
	if shown := BadValue("pool_size", "postgres://ann:sekret@db", "a number").Error(); strings.Contains(shown, "sekret") {
		t.Errorf("it shows %s", shown)
	}
}

func TestEndpoints(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		s, err := reader.Split("host=a,b port=1,2 user=ann password=sekret dbname=app", base == "pq")
		if err != nil {
			t.Fatal(err)
		}
		all, err := reader.Endpoints(base, s)
		if err != nil || len(all) != 2 || all[0].Name != "a:1/app" || all[1].Name != "b:2/app" || !strings.Contains(all[1].DSN, "host=b port=2") {
			t.Errorf("%s: %v, %v", base, all, err)
		}
		all = Distinct(append(all, all[0], Endpoint{all[0].Name, "another user's"}))
		if len(all) != 3 || all[2].Name != "a:1/app#2" {
			t.Errorf("%s: distinct are %v", base, all)
		}
		if _, err := reader.Endpoints(base, Settings{{"pool_sise", "5"}}); err == nil || !strings.Contains(err.Error(), "did you mean pool_size?") {
			t.Errorf("%s: %v", base, err)
		}
	}
}

func TestSplitList(t *testing.T) {
	got := SplitList("postgres://a,b/x, postgres://c/y ,host=d")
	if want := []string{"postgres://a,b/x", "postgres://c/y ,host=d"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
