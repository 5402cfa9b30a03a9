package leak_test

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	httppprof "net/http/pprof"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/leak"
)

//go:noinline
func leakyReport(s *leak.Slot, ctx context.Context) { s.CheckOut(ctx, 0) }

//go:noinline
func busyHandler(s *leak.Slot, ctx context.Context) { s.CheckOut(ctx, 50*time.Minute) }

// heldByTwo makes a tracker of which leakyReport holds one connection for an hour, and busyHandler three for ten minutes.
func heldByTwo(t *testing.T) {
	t.Helper()
	tracker := leak.New(leak.Options{Pool: "app", StackDepth: 16, Base: time.Now().Add(-time.Hour)})
	for id := range uint64(5) {
		s := tracker.Slot(id, "db:5432/app", 0, nil)
		t.Cleanup(s.Remove)
		switch ctx := pprof.WithLabels(t.Context(), pprof.Labels("route", "/users")); id {
		case 0:
		case 1:
			leakyReport(s, ctx)
		default:
			busyHandler(s, ctx)
		}
	}
}

func goToolPprof(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"tool", "pprof"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("go tool pprof: %v\n%s", err, out)
	}
	return string(out)
}

func TestProfileIsReadByPprof(t *testing.T) {
	heldByTwo(t)
	path := filepath.Join(t.TempDir(), "checkouts.pb.gz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := leak.WriteProfile(file); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	// The longest holder first, as the leaf of its stack, although it holds fewer connections.
	out := goToolPprof(t, "-top", path)
	wantMatch(t, out, `Type: held\n(?s).*flat%.*?\n +3600(\.\d+)?s .*leak_test\.leakyReport\n +1800.* 1800.*leak_test\.busyHandler\n`)
	out = goToolPprof(t, "-raw", path)
	wantMatch(t, out, `checkouts/count held/nanoseconds\[dflt\]`)
	wantMatch(t, out, `\n +1 36000\d+: 1 2 (?s).*\n +endpoint:\[db:5432/app\] pool:\[app\] route:\[/users\]\n +3 1800\d+: `)
	wantMatch(t, out, `leak_test\.leakyReport .*leak/profile_test\.go:\d+`)
}

func wantMatch(t *testing.T, text, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(text) {
		t.Errorf("%s\ndoes not match %s", text, pattern)
	}
}

func TestProfileIsServedByNetHTTPPprof(t *testing.T) {
	heldByTwo(t)
	if p := pprof.Lookup(leak.ProfileName); p == nil || p.Count() != 4 {
		t.Fatalf("runtime/pprof has %v, want 4 checkouts", p)
	}
	server := httptest.NewServer(http.HandlerFunc(httppprof.Index))
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	get := func(path string) string {
		response, err := server.Client().Get(server.URL + "/debug/pprof/" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, response.Status, err)
		}
		return string(body)
	}
	if body := get(""); !strings.Contains(body, leak.ProfileName) {
		t.Errorf("/debug/pprof/ doesn't list %s:\n%s", leak.ProfileName, body)
	}
	text := get(leak.ProfileName + "?debug=1")
	wantMatch(t, text, `^managedpg\.checkouts profile: total 4\n1 @ 0x(?s).*held 1h0m0.*leakyReport.*3 @ .*held 30m0.*oldest 10m0.*route "/users".*busyHandler`)
	body := get(leak.ProfileName)
	unzipped, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if proto, err := io.ReadAll(unzipped); err != nil || !strings.Contains(string(proto), "leakyReport") {
		t.Errorf("without debug: %q, %v", proto, err)
	}
}

// Nobody holds anything: still a valid profile.
func TestEmptyProfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkouts.pb.gz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := leak.WriteProfile(file); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	goToolPprof(t, "-raw", path)
}
