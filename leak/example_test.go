package leak_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"path"
	"strings"
	"time"

	"github.com/managedpg/managedpg/leak"
)

// A pool tells a tracker of its checkouts. managedpg's pools do; this is for another one.
func ExampleTracker() {
	t := leak.New(leak.Options{
		Pool:       "shop",
		Threshold:  time.Minute,
		StackDepth: 16,
		Logger:     func() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) },
	})
	slot := t.Slot(1, "db1:5432/shop", 30996, nil) // for each connection that is opened
	defer slot.Remove()

	slot.CheckOut(context.Background(), t.Now())
	for _, r := range t.Longest(3) {
		file, function, _ := strings.Cut(r.Caller, " ")
		file, _, _ = strings.Cut(path.Base(file), ":")
		fmt.Println(file, function, "has connection", r.ConnectionID)
	}
	slot.CheckIn(t.Now())
	fmt.Println(len(t.Longest(3)), "are out")
	// Output:
	// example_test.go github.com/managedpg/managedpg/leak_test.ExampleTracker has connection 1
	// 0 are out
}

// Who holds connections now, for "go tool pprof checkouts.pb.gz".
func ExampleWriteProfile() {
	f, err := os.Create("checkouts.pb.gz")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if err := leak.WriteProfile(f); err != nil {
		log.Fatal(err)
	}
}
