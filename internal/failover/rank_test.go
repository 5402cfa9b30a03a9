package failover

import (
	"fmt"
	"slices"
	"testing"
)

var (
	rw        = Observation{Role: ReadWrite, Recovery: NotInRecovery}
	ro        = Observation{Role: ReadOnly, Recovery: InRecovery}
	roPrimary = Observation{Role: ReadOnly, Recovery: NotInRecovery} // default_transaction_read_only
	cannot    = Observation{Role: RoleUnknown}
)

func TestTargetSessionAttrs(t *testing.T) {
	for _, c := range []struct {
		target                     target
		rw, ro, roPrimary, unknown bool
	}{
		{targetAny, true, true, true, true},
		{targetReadWrite, true, false, false, true},
		{targetReadOnly, false, true, true, true},
		{targetPrimary, true, false, true, true},
		{targetStandby, false, true, false, true},
		{targetPreferStandby, true, true, true, true},
	} {
		got := []bool{c.target.admits(rw), c.target.admits(ro), c.target.admits(roPrimary), c.target.admits(cannot)}
		if want := []bool{c.rw, c.ro, c.roPrimary, c.unknown}; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", c.target, got, want)
		}
	}
	// Where recovery can't be read, the role stands for it.
	if targetPrimary.admits(Observation{Role: ReadOnly}) || targetStandby.admits(Observation{Role: ReadWrite}) {
		t.Error("role doesn't stand for recovery")
	}
}

func on(o Observation, s State) candidate { return candidate{Observation: o, state: s} }

func TestOrder(t *testing.T) {
	fenced, barred, silent, full := on(rw, Up), on(rw, Up), on(rw, Suspect), on(rw, Up)
	fenced.fenced, barred.barred, silent.silent, full.full = true, true, true, true
	for _, c := range []struct {
		target target
		of     []candidate
		want   []int
	}{
		{targetAny, []candidate{on(rw, Up), on(rw, Up)}, []int{0, 1}},
		{targetAny, []candidate{on(ro, Up), on(rw, Up), on(ro, Up)}, []int{1, 0, 2}},
		{targetAny, []candidate{on(ro, Up), on(cannot, Up)}, []int{1, 0}},
		{targetAny, []candidate{on(rw, Down), on(ro, Up), on(rw, Misconfigured)}, []int{1}},
		{targetAny, []candidate{on(rw, Suspect), on(rw, Unknown), on(rw, Up)}, []int{0, 1, 2}},
		{targetAny, []candidate{silent, on(ro, Up), on(rw, Up)}, []int{2, 0, 1}}, // a slow writer before a quick standby
		{targetAny, []candidate{full, on(ro, Up), on(rw, Up)}, []int{2, 1, 0}},
		{targetReadWrite, []candidate{full, on(ro, Up)}, []int{0}},
		{targetAny, []candidate{fenced, on(rw, Up), barred}, []int{1}},
		{targetReadWrite, []candidate{on(ro, Up), on(rw, Up)}, []int{1}},
		{targetReadWrite, []candidate{on(ro, Up), on(cannot, Up)}, []int{1}},
		{targetReadOnly, []candidate{on(rw, Up), on(ro, Up)}, []int{1}},
		{targetPreferStandby, []candidate{on(rw, Up), on(ro, Up), on(ro, Up)}, []int{1, 2, 0}},
		{targetPreferStandby, []candidate{on(rw, Up), on(ro, Down)}, []int{0}},
		{targetReadWrite, []candidate{on(ro, Up), on(rw, Down)}, nil},
	} {
		t.Run(fmt.Sprint(c.target, c.want), func(t *testing.T) {
			if got := order(c.target, c.of); !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	good := func(n int, c candidate) candidate { c.good = n; return c }
	crowd := func(c candidate) candidate { c.full = true; return c }
	same := Observation{Role: ReadWrite, Recovery: NotInRecovery, Timeline: 4, SystemID: "7"}
	for _, c := range []struct {
		name    string
		target  target
		of      []candidate
		current int
		want    int
	}{
		{"stays on a suspect", targetAny, []candidate{on(rw, Suspect), on(rw, Up)}, 0, 0},
		{"leaves a dead one", targetAny, []candidate{on(rw, Down), on(rw, Up)}, 0, 1},
		{"has nowhere to go", targetReadWrite, []candidate{on(rw, Down), on(ro, Up)}, 0, -1},
		{"not yet back", targetAny, []candidate{good(2, on(rw, Up)), on(rw, Up)}, 1, 1},
		{"back", targetAny, []candidate{good(3, on(rw, Up)), on(rw, Up)}, 1, 0},
		{"back to the next best", targetAny, []candidate{good(1, on(rw, Up)), good(3, on(rw, Up)), on(rw, Up)}, 2, 1},
		{"not back to a suspect", targetAny, []candidate{good(3, on(rw, Suspect)), on(rw, Up)}, 1, 1},
		{"back at once to the only writer", targetAny, []candidate{good(1, on(rw, Up)), on(ro, Up)}, 1, 0},
		{"on at once to the only writer", targetAny, []candidate{on(ro, Up), good(1, on(rw, Up))}, 0, 1},
		{"not at once from what can't be read", targetAny, []candidate{good(1, on(rw, Up)), on(cannot, Up)}, 1, 1},
		{"a standby is preferred, in time", targetPreferStandby, []candidate{on(rw, Up), good(2, on(ro, Up))}, 0, 0},
		{"a standby is preferred", targetPreferStandby, []candidate{on(rw, Up), good(3, on(ro, Up))}, 0, 1},
		{"full, and another has room", targetReadWrite, []candidate{crowd(on(rw, Up)), on(rw, Up)}, 0, 1},
		{"full, and nothing is known of the other", targetReadWrite, []candidate{crowd(on(rw, Up)), on(Observation{}, Unknown)}, 0, 0},
		{"two writers on one timeline", targetReadWrite, []candidate{good(9, on(same, Up)), on(same, Up)}, 1, 1},
		{"two writers, one of them dead", targetReadWrite, []candidate{on(same, Up), on(same, Down)}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rules{target: c.target, failback: true, failbackAfter: 3}
			if got, _ := r.choose(c.of, c.current); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
	r := rules{target: targetAny, failbackAfter: 3}
	if got, _ := r.choose([]candidate{good(9, on(rw, Up)), on(rw, Up)}, 1); got != 1 {
		t.Error("failed back with failback off")
	}
}

func TestFence(t *testing.T) {
	server := func(o Observation, timeline int64, id string) Observation {
		o.Timeline, o.SystemID = timeline, id
		return o
	}
	f := fence{on: true, highest: make(map[string]newest)}
	for _, o := range []Observation{server(rw, 1, "a"), server(rw, 2, "a"), server(cannot, 9, "a"), server(rw, 0, "a")} {
		f.see("db", o)
	}
	for _, c := range []struct {
		o    Observation
		want bool
	}{
		{server(rw, 1, "a"), true},
		{server(roPrimary, 1, "a"), true},
		{server(rw, 2, "a"), false},
		{server(rw, 3, "a"), false},
		{server(ro, 1, "a"), false},     // a standby isn't written to
		{server(rw, 1, "b"), false},     // another system
		{server(rw, 1, ""), false},      // can't be read
		{server(rw, 0, "a"), false},     // can't be read
		{server(cannot, 1, "a"), false}, // can't be read
	} {
		if got := f.shuts(c.o); got != c.want {
			t.Errorf("%+v: %v", c.o, got)
		}
	}
	f.see("db", server(ro, 3, "a"))
	if !f.shuts(server(rw, 2, "a")) {
		t.Error("a standby on a newer timeline follows a newer writer")
	}
}
