package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// cluster is two servers that Patroni manages, by etcd.
type cluster struct {
	*testing.T
	bin, etcd string
	members   map[string]*member
}

// member is a Patroni with its server.
type member struct {
	*host
	postgres, api string // addresses
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	bin, err := pgtest.Shared(t).QueryString("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
	must(t, err)
	c := &cluster{T: t, bin: bin, etcd: "127.0.0.1:" + freePort(t), members: map[string]*member{}}
	peer := "http://127.0.0.1:" + freePort(t)
	h := newHost(t)
	h.run("etcd-server", "etcd", "--name", "etcd", "--data-dir", "etcd", "--unsafe-no-fsync",
		"--listen-client-urls", "http://"+c.etcd, "--advertise-client-urls", "http://"+c.etcd,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "etcd="+peer)
	eventually(t, "etcd is healthy", func() bool {
		var health struct{ Health string }
		return get("http://"+c.etcd+"/health", &health) == nil && health.Health == "true"
	})
	for _, name := range []string{"one", "two"} {
		c.members[name] = &member{newHost(t), "127.0.0.1:" + freePort(t), "127.0.0.1:" + freePort(t)}
		c.start(name)
	}
	return c
}

// start starts a member, with the data that it had.
func (c *cluster) start(name string) {
	c.Helper()
	type object map[string]any
	m := c.members[name]
	config, err := json.Marshal(object{ // which is YAML too
		"scope":   "managedpg",
		"name":    name,
		"restapi": object{"listen": m.api, "connect_address": m.api},
		"etcd3":   object{"hosts": c.etcd},
		"bootstrap": object{
			"dcs": object{
				"ttl": 5, "loop_wait": 1, "retry_timeout": 2,
				"synchronous_mode": true, // or a write that was acknowledged may be lost with the leader
				"postgresql":       object{"use_pg_rewind": true, "parameters": object{"wal_log_hints": "on"}},
			},
			"initdb": []any{object{"encoding": "UTF8"}, object{"locale": "C"}},
		},
		"postgresql": object{
			"listen": m.postgres, "connect_address": m.postgres, "data_dir": "data", "bin_dir": c.bin,
			"pgpass":         filepath.Join(m.dir, "pgpass"),
			"authentication": object{"superuser": object{"username": "postgres"}, "replication": object{"username": "postgres"}},
			"parameters": object{"unix_socket_directories": m.dir, "fsync": "off", "dynamic_shared_memory_type": "mmap",
				"wal_retrieve_retry_interval": "200ms"},
			"pg_hba": []string{"local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"},
		},
	})
	must(c.T, err)
	m.run("patroni", "patroni", m.file("patroni.yml", string(config)))
}

func get(url string, answer any) error {
	r, err := http.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(answer)
}

// settled waits for a leader with a synchronous standby, and says which is which.
func (c *cluster) settled() (leader, standby string) {
	c.Helper()
	eventually(c.T, "Patroni has a leader and a synchronous standby", func() bool {
		leader, standby = "", ""
		for _, m := range c.members {
			var cluster struct {
				Members []struct{ Name, Role, State string }
			}
			if get("http://"+m.api+"/cluster", &cluster) != nil {
				return false
			}
			for _, m := range cluster.Members {
				switch {
				case m.Role == "leader" && m.State == "running":
					leader = m.Name
				case m.Role == "sync_standby" && (m.State == "running" || m.State == "streaming"):
					standby = m.Name
				}
			}
		}
		return leader != "" && standby != ""
	})
	return leader, standby
}

func (c *cluster) switchover(from, to string) {
	c.Helper()
	order, err := json.Marshal(map[string]string{"leader": from, "candidate": to})
	must(c.T, err)
	r, err := http.Post("http://"+c.members[from].api+"/switchover", "application/json", bytes.NewReader(order))
	must(c.T, err)
	defer r.Body.Close()
	if said, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusOK {
		c.Fatalf("switchover: %s: %s", r.Status, said)
	}
}

// A switchover, the death of a leader, and its return, under writes: none is lost, none is there twice.
func TestPatroni(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a, b := c.settled()
	first, second := c.members[a].postgres, c.members[b].postgres
	db, pool := open(t, fmt.Sprintf("postgres://postgres@%s,%s/postgres?sslmode=disable&pool_size=4", first, second))
	ctx := context.Background()
	_, err := db.ExecContext(ctx, "CREATE TABLE written (id int)")
	must(t, err)
	w := write(t, db)
	w.goesOn()
	isOn := func(addr string) {
		t.Helper()
		eventually(t, "it is on "+addr, func() bool { return pool.Failover().Current == addr+"/postgres" })
		w.goesOn()
	}

	start := time.Now()
	c.switchover(a, b)
	isOn(second)
	t.Logf("the switchover took %v", time.Since(start))

	if leader, _ := c.settled(); leader != b { // the old leader follows the new one
		t.Fatalf("Patroni's leader is %s", leader)
	}
	start = time.Now()
	c.members[b].kill()
	isOn(first)
	t.Logf("the death took %v", time.Since(start))

	c.start(b)
	eventually(t, "the dead one is back, as a standby", func() bool {
		h := pool.CheckNow(ctx).Endpoints
		return h[0].Role == failover.ReadWrite && h[0].Timeline == 3 &&
			h[1].State == failover.Up && h[1].Role == failover.ReadOnly && !h[1].Fenced
	})
	w.goesOn()
	w.stop()
	var ids string
	must(t, db.QueryRowContext(ctx, allWritten).Scan(&ids))
	w.check(ids)
	if f := pool.Failover(); f.FailoverCount != 2 || f.FailbackCount != 0 || !f.IsPrimary {
		t.Errorf("after all: %+v", f)
	}
}
