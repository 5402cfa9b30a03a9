// Picture makes docs/page.png: it runs examples/dashboard for some minutes and takes a picture of its page with Chromium.
//
//	cd integration && go run ./web/picture ../docs/page.png
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"time"

	"github.com/chromedp/chromedp"
)

func main() {
	log.SetFlags(0)
	after := flag.Duration("after", 160*time.Second, "how long the dashboard runs before")
	browser := flag.String("browser", "chromium", "the browser's executable")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: picture [flags] FILE.png")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *after, *browser, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, after time.Duration, browser, file string) error {
	ctx, stop := context.WithTimeout(ctx, after+2*time.Minute)
	defer stop()
	dashboard := exec.CommandContext(ctx, "go", "run", "./examples/dashboard", "-addr", "127.0.0.1:0", "-for", (after + time.Minute).String())
	dashboard.Dir, dashboard.Stderr = "..", os.Stderr
	out, err := dashboard.StdoutPipe()
	if err != nil {
		return err
	}
	if err := dashboard.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	page := regexp.MustCompile(`http://[^/]+/`).FindString(lines.Text())
	if page == "" {
		return errors.New("dashboard: no address in: " + lines.Text())
	}
	go func() {
		for lines.Scan() {
		}
	}()
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return ctx.Err()
	}
	shot, err := screenshot(ctx, browser, page+"?pool=shop&last=5m")
	if err != nil {
		return err
	}
	small, err := shrink(shot)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, small, 0o644); err != nil {
		return err
	}
	return dashboard.Wait() // it ends by itself, and its servers with it
}

func screenshot(ctx context.Context, browser, page string) (shot []byte, err error) {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser), chromedp.NoSandbox)
	ctx, cancel := chromedp.NewExecAllocator(ctx, options...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = chromedp.Run(ctx, chromedp.EmulateViewport(1160, 800), chromedp.Navigate(page), chromedp.FullScreenshot(&shot, 100))
	return shot, err
}

// shrink writes a picture in its 256 most frequent colours, at a third of the size.
func shrink(shot []byte) ([]byte, error) {
	full, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		return nil, err
	}
	counts := make(map[color.Color]int)
	bounds := full.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			counts[full.At(x, y)]++
		}
	}
	var palette color.Palette
	for c := range counts {
		palette = append(palette, c)
	}
	slices.SortFunc(palette, func(a, b color.Color) int { return cmp.Compare(counts[b], counts[a]) })
	small := image.NewPaletted(bounds, palette[:min(256, len(palette))])
	draw.Draw(small, bounds, full, bounds.Min, draw.Src)
	var out bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	err = encoder.Encode(&out, small)
	return out.Bytes(), err
}
