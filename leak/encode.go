package leak

import (
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// encodeProfile writes the groups in the format of
// https://github.com/google/pprof/blob/main/proto/profile.proto, whose field numbers these are.
func encodeProfile(w io.Writer, groups []*group, at time.Time) error {
	p := profileEncoder{
		strings:   map[string]uint64{"": 0},
		functions: make(map[runtime.Frame]uint64),
		locations: make(map[runtime.Frame]uint64),
	}
	p.table = message{}.bytes(6, nil)
	p.body = p.body.
		message(1, p.valueType("checkouts", "count")).
		message(1, p.valueType("held", "nanoseconds"))
	for _, g := range groups {
		p.sample(g)
	}
	program := ""
	if exe, err := os.Executable(); err == nil {
		program = filepath.Base(exe)
	}
	// Everything is symbolized: nobody need look for the program's binary.
	p.body = p.body.
		message(3, message{}.uint(1, 1).uint(3, 1<<63).uint(5, p.string(program)).uint(7, 1).uint(8, 1).uint(9, 1).uint(10, 1)).
		uint(9, uint64(at.UnixNano())).
		message(11, p.valueType("checkouts", "count")).
		uint(12, 1).
		uint(14, p.string("held"))
	z := gzip.NewWriter(w)
	for _, part := range []message{p.body, p.table} {
		if _, err := z.Write(part); err != nil {
			return err
		}
	}
	return z.Close()
}

type profileEncoder struct {
	body      message
	table     message // of strings
	strings   map[string]uint64
	functions map[runtime.Frame]uint64 // by Function and File
	locations map[runtime.Frame]uint64 // by PC and what it stands for
}

func (p *profileEncoder) sample(g *group) {
	var sample, ids, values message
	for _, f := range g.frames {
		ids = binary.AppendUvarint(ids, p.location(f))
	}
	if len(g.frames) == 0 {
		ids = binary.AppendUvarint(ids, p.location(runtime.Frame{Function: "unknown caller"}))
	}
	values = binary.AppendUvarint(values, uint64(g.count))
	values = binary.AppendUvarint(values, uint64(g.held))
	sample = sample.bytes(1, ids).bytes(2, values)
	for _, tag := range g.tags {
		sample = sample.message(3, message{}.uint(1, p.string(tag[0])).uint(2, p.string(tag[1])))
	}
	p.body = p.body.message(2, sample)
}

func (p *profileEncoder) location(f runtime.Frame) uint64 {
	key := runtime.Frame{PC: f.PC, Function: f.Function, Line: f.Line}
	id, ok := p.locations[key]
	if !ok {
		id = uint64(len(p.locations) + 1)
		p.locations[key] = id
		line := message{}.uint(1, p.function(f)).uint(2, uint64(f.Line))
		p.body = p.body.message(4, message{}.uint(1, id).uint(2, 1).uint(3, uint64(f.PC)).message(4, line))
	}
	return id
}

func (p *profileEncoder) function(f runtime.Frame) uint64 {
	key := runtime.Frame{Function: f.Function, File: f.File}
	id, ok := p.functions[key]
	if !ok {
		id = uint64(len(p.functions) + 1)
		p.functions[key] = id
		name := p.string(f.Function)
		p.body = p.body.message(5, message{}.uint(1, id).uint(2, name).uint(3, name).uint(4, p.string(f.File)))
	}
	return id
}

func (p *profileEncoder) valueType(name, unit string) message {
	return message{}.uint(1, p.string(name)).uint(2, p.string(unit))
}

func (p *profileEncoder) string(s string) uint64 {
	i, ok := p.strings[s]
	if !ok {
		i = uint64(len(p.strings))
		p.strings[s] = i
		p.table = p.table.bytes(6, []byte(s))
	}
	return i
}

// message is a protocol buffer being written.
type message []byte

func (m message) uint(field int, v uint64) message {
	return binary.AppendUvarint(binary.AppendUvarint(m, uint64(field)<<3), v)
}

func (m message) bytes(field int, b []byte) message {
	m = binary.AppendUvarint(m, uint64(field)<<3|2)
	return append(binary.AppendUvarint(m, uint64(len(b))), b...)
}

func (m message) message(field int, sub message) message { return m.bytes(field, sub) }
