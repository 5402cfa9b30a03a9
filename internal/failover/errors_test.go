package failover_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/multierr"

	"github.com/managedpg/managedpg/internal/failover"
)

// No secret leaves by our hand, even where a user's own connector prints its DSN.
func TestNoPasswordInTexts(t *testing.T) {
	for _, text := range []string{
		"cannot dial postgres://bob:s3cret@db/app?x=1",
		"cannot parse `host=db user=bob password=s3cret`",
		`cannot parse "host=db password = 's3cret with \' quotes s3cret' user=bob"`,
		"cannot dial postgres://db/app?sslpassword=s3cret&user=bob",
	} {
		scene(t, nil, two, func(r *rig) {
			for _, s := range r.servers {
				s.set(func(s *server) { s.err = errors.New(text) })
			}
			ctx, cancel := r.within(10 * time.Millisecond)
			defer cancel()
			_, err := r.connect(ctx)
			health, _ := json.Marshal(r.CheckNow(context.Background()))
			status, _ := json.Marshal(r.Status())
			said := err.Error() + string(health) + string(status) + r.log()
			if strings.Contains(said, "s3cret") || !strings.Contains(said, "***") {
				r.t.Error(said)
			}
		})
	}
}

func TestNoEndpointErrorHasAnEntryForEach(t *testing.T) {
	scene(t, func(o *failover.Options) { o.TargetSessionAttrs, o.FailoverTimeout = "read-write", time.Second }, []failover.Observation{writer(1), standby(1), writer(1)}, func(r *rig) {
		r.servers[0].die()
		r.servers[2].set(func(s *server) { s.err = fmt.Errorf("dial: %w", sqlState("28P01")) })
		_, err := r.connect(context.Background())
		var all *failover.NoEndpointError
		if !errors.As(err, &all) {
			r.t.Fatal(err)
		}
		want(r.t, "text", err.Error(), `managedpg: pool "app": no usable endpoint within 1s (`+
			`db0:5432/app down: dial tcp: connection refused; `+
			`db1:5432/app up: it is a standby, wanted is read-write; `+
			`db2:5432/app misconfigured: dial: server says 28P01)`)
		want(r.t, "entries", len(multierr.Errors(all.Unwrap()[1])), 3)
		var one *failover.EndpointError
		want(r.t, "entry", errors.As(err, &one), true)
		want(r.t, "state", one.State, failover.Down)
	})
}

func TestDropErrorSaysWhy(t *testing.T) {
	err := &failover.DropError{Endpoint: "db0:5432/app", Kind: failover.Hung, Detail: "2 probes in a row were not answered"}
	want(t, "text", err.Error(), "managedpg: connection to db0:5432/app closed, hung: 2 probes in a row were not answered")
}
