// Package web looks at the page of ../../stats/web with a real browser, Chromium.
package web

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats/web"
)

func TestMain(m *testing.M) {
	managedpg.SetLogger(slog.New(slog.DiscardHandler))
	os.Exit(pgtest.Suite(m).Run())
}

// hostile is a pool's name that would run a script, load an image and break out of an attribute.
const hostile = `"><script>alert(1)</script><img src=http://elsewhere.invalid/x onerror=alert(2)>`

// chromium is the browser's path; .ci/prepare installs it. Without one the test fails: nothing is skipped.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("no Chromium: install Debian's package chromium")
	return ""
}

// browser is a tab, and what the page in it did that it must not.
type browser struct {
	ctx context.Context
	url string

	mu     sync.Mutex
	faults []string
}

func (b *browser) fault(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, fmt.Sprintf(format, args...))
}

func (b *browser) listen(event any) {
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, b.url) && e.Request.URL != "data:," {
			b.fault("request to %s", e.Request.URL)
		}
	case *runtime.EventConsoleAPICalled:
		var said []string
		for _, arg := range e.Args {
			said = append(said, string(arg.Value))
		}
		b.fault("console: %s %q", e.Type, said)
	case *runtime.EventExceptionThrown:
		b.fault("exception: %s", e.ExceptionDetails.Error())
	case *log.EventEntryAdded:
		b.fault("log: %s: %s", e.Entry.Level, e.Entry.Text)
	case *page.EventJavascriptDialogOpening:
		b.fault("dialog: %s", e.Message)
	}
}

func (b *browser) run(t *testing.T, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		t.Fatalf("%v; faults: %q", err, b.faults)
	}
}

// eval evaluates JavaScript in the page.
func eval[T any](t *testing.T, b *browser, js string) (v T) {
	t.Helper()
	b.run(t, chromedp.Evaluate(js, &v))
	return v
}

// until waits for a JavaScript condition.
func (b *browser) until(t *testing.T, condition string) {
	t.Helper()
	b.run(t, chromedp.Poll(condition, nil, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(40*time.Second)))
}

// refreshed waits until the page has refreshed itself.
func (b *browser) refreshed(t *testing.T, times int) {
	t.Helper()
	for range times {
		eval[bool](t, b, `document.getElementById("main").dataset.old = "yes", true`)
		b.until(t, `document.getElementById("main").dataset.old === undefined`)
	}
}

// screenshot goes where the variable MANAGEDPG_SCREENSHOTS says, if that is set, to be looked at.
func (b *browser) screenshot(t *testing.T, name string) {
	t.Helper()
	var png []byte
	b.run(t, chromedp.FullScreenshot(&png, 100))
	if len(png) < 10_000 {
		t.Errorf("the screenshot %s has %d bytes", name, len(png))
	}
	if dir := os.Getenv("MANAGEDPG_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
			t.Error(err)
		}
	}
}

const phone = 390 // wide

// fits says that nothing on a phone lies beyond its edge, but for stacks and their tables, which scroll.
func (b *browser) fits(t *testing.T) {
	t.Helper()
	if width := eval[int](t, b, `document.documentElement.scrollWidth`); width > phone {
		t.Errorf("on a phone %d wide the page is %d wide", phone, width)
	}
	if cut := eval[[]string](t, b, `[...document.querySelectorAll(".cards th, .cards td, .story, .tiles dd")]
		.filter((e) => e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.textContent)`); len(cut) > 0 {
		t.Errorf("cut off on a phone: %q", cut)
	}
}

// browse opens the handler's page, 1280 wide and light. What the page does that it must not fails the test when it ends.
func browse(t *testing.T, page http.Handler) *browser {
	t.Helper()
	server := httptest.NewServer(page)
	t.Cleanup(server.Close)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.WSURLReadTimeout(time.Minute))
	ctx, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancelTab := chromedp.NewContext(ctx)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	b := &browser{ctx: ctx, url: server.URL}
	t.Cleanup(func() {
		cancel()
		cancelTab()
		cancelAllocator()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, f := range b.faults {
			t.Error(f)
		}
	})
	chromedp.ListenTarget(ctx, b.listen)
	b.run(t, log.Enable(), network.Enable())
	b.dressed(t, "light", 1280, 900)
	b.run(t, chromedp.Navigate(server.URL))
	return b
}

// dressed sets the colour scheme and the window's size; up to 500 wide it is a phone's.
func (b *browser) dressed(t *testing.T, scheme string, width, height int64) {
	t.Helper()
	var options []chromedp.EmulateViewportOption
	if width <= 500 {
		options = append(options, chromedp.EmulateScale(2), chromedp.EmulateMobile)
	}
	b.run(t, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
		chromedp.EmulateViewport(width, height, options...))
}

func TestPage(t *testing.T) {
	db := load(t)
	b := browse(t, web.Handler())

	// A hostile name stays text.
	if name := eval[string](t, b, `document.querySelector(".pool h2").textContent`); name != hostile {
		t.Errorf("the pool's name is shown as %q", name)
	}
	if n := eval[int](t, b, `document.querySelectorAll("img, iframe, script").length`); n != 1 {
		t.Errorf("%d scripts and images, want the page's one script", n)
	}

	// The chart moves by itself.
	chart := eval[string](t, b, `document.querySelector("path.used").getAttribute("d")`)
	b.refreshed(t, 2)
	if now := eval[string](t, b, `document.querySelector("path.used").getAttribute("d")`); now == chart {
		t.Errorf("the chart still is %s", chart)
	}
	if n := eval[int](t, b, `document.querySelectorAll(".bars rect").length`); n == 0 {
		t.Error("no histogram has a bar")
	}

	// A stack unfolds by keyboard, and stays unfolded and focused over refreshes and a reload; a folded one stays folded.
	const forgetful = `[...document.querySelectorAll("details.holder")].find((d) => d.textContent.includes("forget"))`
	eval[bool](t, b, forgetful+`.querySelector("summary").focus(), true`)
	b.run(t, chromedp.KeyEvent("\r"))
	b.until(t, forgetful+".open")
	b.refreshed(t, 2)
	if !eval[bool](t, b, forgetful+".open") {
		t.Error("a refresh folds the stack")
	}
	if !eval[bool](t, b, forgetful+`.querySelector("summary") === document.activeElement`) {
		t.Error("a refresh takes the focus away")
	}
	if stack := eval[string](t, b, forgetful+`.querySelector(".stack").innerText`); !strings.Contains(stack, "browser_test.go") {
		t.Errorf("the stack is %q", stack)
	}
	b.run(t, chromedp.Reload())
	if !eval[bool](t, b, forgetful+".open") {
		t.Error("a reload folds the stack")
	}
	b.screenshot(t, "light")

	// Pause stops the refreshing.
	b.run(t, chromedp.Click("header button"))
	eval[bool](t, b, `document.getElementById("main").dataset.old = "yes", true`)
	time.Sleep(2500 * time.Millisecond)
	if eval[bool](t, b, `document.getElementById("main").dataset.old === undefined`) {
		t.Error("the page refreshes itself while paused")
	}
	b.run(t, chromedp.Click("header button"))
	b.refreshed(t, 1)

	light := eval[string](t, b, `getComputedStyle(document.body).backgroundColor`)
	b.dressed(t, "dark", 1280, 900)
	if dark := eval[string](t, b, `getComputedStyle(document.body).backgroundColor`); dark == light {
		t.Errorf("dark is as light: %s", dark)
	}
	b.screenshot(t, "dark")

	b.dressed(t, "light", phone, 844)
	b.refreshed(t, 1)
	b.fits(t)
	b.screenshot(t, "phone")

	// Without JavaScript everything is there.
	b.run(t, emulation.SetScriptExecutionDisabled(true), chromedp.EmulateViewport(1280, 900), chromedp.Navigate(b.url))
	var text string
	b.run(t, chromedp.OuterHTML("html", &text))
	for _, want := range []string{"reload for newer figures", "<path class=\"used\"", "forget", "browser_test.go", db.endpoint, "p99"} {
		if !strings.Contains(text, want) {
			t.Errorf("without JavaScript %q is missing", want)
		}
	}
	b.run(t, emulation.SetScriptExecutionDisabled(false))
}

type pool struct{ endpoint string }

// load is a pool under some load, from which one connection leaks.
func load(t *testing.T) pool {
	cfg, err := managedpg.ParseDSN(pgtest.Database(t) + "&pool_size=3&max_overflow=1&leak_threshold=100ms&health_check_interval=200ms")
	if err != nil {
		t.Fatal(err)
	}
	cfg.PoolName = hostile
	db, err := managedpg.OpenDB(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for range 6 {
		work.Go(func() {
			for ctx.Err() == nil {
				db.ExecContext(ctx, "SELECT pg_sleep(random() * 0.05)")
			}
		})
	}
	rows := forget(ctx, db)
	t.Cleanup(func() {
		stop()
		work.Wait()
		if rows != nil {
			rows.Close()
		}
		db.Close()
	})
	p, _ := managedpg.PoolOf(db)
	return pool{p.Stats().Endpoint}
}

func forget(ctx context.Context, db *sql.DB) *sql.Rows {
	rows, _ := db.QueryContext(ctx, "SELECT generate_series(1, 10)")
	return rows
}
