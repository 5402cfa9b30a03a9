package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// page prints what fell out, and says whether nothing did.
func page(w io.Writer, jobs []*job, dir string, took time.Duration) (good bool) {
	var runs, failed int
	for _, j := range jobs {
		runs += len(j.runs)
		failed += len(j.failures)
	}
	fmt.Fprintf(w, "# A night of %v: %d runs, %d of them failed\n\nThe test binaries, the outputs of failed runs and the ledger's histories are in %s.\n\n", took.Round(time.Minute), runs, failed, dir)
	fmt.Fprintf(w, "| job | runs | failed | median |\n|---|--:|--:|--:|\n")
	for _, j := range jobs {
		fmt.Fprintf(w, "| %s | %d | %d | %s |\n", j.name, len(j.runs), len(j.failures), median(j.runs))
	}
	for _, j := range jobs {
		for _, same := range alike(j.failures) {
			fmt.Fprintf(w, "\n## %s, %d times\n\n    %s\n\n", j.name, len(same), strings.Join(same[0].args, " "))
			for line := range strings.Lines(same[0].said) {
				fmt.Fprintf(w, "    %s", line)
			}
			fmt.Fprint(w, "\n\n")
			for _, f := range same {
				fmt.Fprintf(w, "- %s\n", f.file)
			}
		}
	}
	return failed == 0
}

func median(runs []time.Duration) string {
	if len(runs) == 0 {
		return "-"
	}
	runs = slices.Sorted(slices.Values(runs))
	return runs[len(runs)/2].Round(time.Second / 10).String()
}

// alike puts failures together that say the same but for numbers.
func alike(failures []failure) (groups [][]failure) {
	at := make(map[string]int)
	for _, f := range failures {
		key := numbers.ReplaceAllString(f.said, "0")
		i, seen := at[key]
		if !seen {
			i = len(groups)
			at[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], f)
	}
	return groups
}

var numbers = regexp.MustCompile(`[0-9]+`)

// excerpt is what tells of a failure: the lines after each mark of one, up to the next test; the end of the output where there is no mark.
func excerpt(out string) string {
	const most, after = 30, 6
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var kept []string
	left := 0
	for _, line := range lines {
		switch trimmed := strings.TrimSpace(line); {
		case strings.HasPrefix(trimmed, "--- FAIL"), strings.HasPrefix(trimmed, "panic:"), strings.Contains(trimmed, "DATA RACE"):
			left = after
		case strings.HasPrefix(trimmed, "--- PASS"), strings.HasPrefix(trimmed, "=== "):
			left = 0
		}
		if left > 0 && len(kept) < most {
			kept = append(kept, line)
			left--
		}
	}
	if kept == nil {
		kept = lines[max(0, len(lines)-most):]
	}
	return strings.Join(kept, "\n") + "\n"
}
