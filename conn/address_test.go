package conn

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// lib/pq goes on from an address that hangs to the next, and begins with that the next time.
func TestPqGoesOnToTheNextAddress(t *testing.T) {
	server := pgtest.Start(t)
	hung, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	_, port, _ := net.SplitHostPort(hung.Addr().String())
	alive, err := net.Listen("tcp", "127.0.0.3:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	go func() {
		for {
			c, err := alive.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server.Addr())
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(up, c); up.Close() }()
			go func() { _, _ = io.Copy(c, up); c.Close() }()
		}
	}()
	d := &Dialer{}
	e, err := Pq("db", "postgres://postgres@db.example:"+port+"/postgres?sslmode=disable", d)
	if err != nil {
		t.Fatal(err)
	}
	e.connector.(*pq.Connector).Dialer(pqDialer{d, func(context.Context, string) ([]string, error) {
		return []string{"127.0.0.2", "127.0.0.3"}, nil
	}})
	tries := 0
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := e.each(ctx, func(ctx context.Context) error {
			tries++
			base, d, err := e.connect(ctx, e.connector)
			if err == nil {
				end(base, d.last)
			}
			return err
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	if tries != 4 {
		t.Errorf("%d tries for 3 connections, want one more", tries)
	}
}

func TestOrderOfAddresses(t *testing.T) {
	var a addresses
	want := func(what string, err error, want ...string) {
		t.Helper()
		if got, _ := a.found([]string{"1", "2", "3"}, err); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	if _, err := a.found(nil, errors.New("no")); err == nil {
		t.Error("nothing is known, and no error")
	}
	want("as the resolver has them", nil, "1", "2", "3")
	a.disliked("1")
	want("one that wouldn't do", nil, "2", "3", "1")
	a.liked("3")
	want("the last that would do", nil, "3", "2", "1")
	a.liked("1")
	want("it is back", errors.New("the resolver fails"), "1", "2", "3")
}
