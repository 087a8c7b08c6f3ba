package server

import (
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzSurface runs programs of calls against a server: see surface.
func FuzzSurface(f *testing.F) {
	f.Add([]byte{})
	s := newSurface(f)
	f.Fuzz(func(t *testing.T, program []byte) {
		s.tb = t
		defer func() { s.tb = f }()
		wrong, _ := s.run(program)
		for _, w := range wrong {
			t.Error(w)
		}
	})
}

var (
	surfaceTime = flag.Duration("surface", 0, "how long TestSurface attacks the surface; 0: with so many programs")
	surfaceSeed = flag.Uint64("surface.seed", 1, "what TestSurface begins with")
	surfaceKeep = flag.Bool("surface.keep", false, "write the programs that were answered in new ways into the corpus of FuzzSurface")
)

// TestSurface attacks the surface by chance: each program is new, or one that was
// answered in a way that none was before, changed. The fuzzing of the Go command
// would be led by the branches of the embedded database, which no answer shows.
func TestSurface(t *testing.T) {
	s := newSurface(t)
	random := rand.New(rand.NewPCG(*surfaceSeed, 0))
	seen, kept := map[string]int{}, map[string]int{}
	var pool [][]byte
	programs, calls, begin := 0, 0, time.Now()
	for ; more(programs, begin); programs++ {
		program := made(random, pool)
		wrong, answered := s.run(program)
		for _, w := range wrong {
			t.Errorf("the program %x: %s", program, w)
		}
		if wrong != nil {
			s.start()
		}
		if len(wrong) > 0 && *surfaceTime == 0 {
			break
		}
		calls += len(answered)
		fresh := false
		for _, a := range answered {
			fresh = fresh || seen[a] == 0
			seen[a]++
			if _, how, _ := strings.Cut(a, " | "); *surfaceKeep && kept[how] == 0 {
				kept[how]++
				keep(t, program)
			}
		}
		if fresh {
			pool = append(pool, program)
		}
		if programs%5000 == 4999 {
			if err := s.memory(); err != nil {
				t.Error(err)
			}
			fmt.Fprintf(os.Stderr, "surface: %v, %d programs, %d calls, %d kinds of answers\n", time.Since(begin).Round(time.Second), programs+1, calls, len(seen))
		}
	}
	t.Logf("%d programs, %d calls, %d kinds of answers in %v", programs, calls, len(seen), time.Since(begin).Round(time.Second))
	if len(seen) < 30 {
		t.Errorf("only %d kinds of answers were seen", len(seen))
	}
}

// more tells whether TestSurface goes on.
func more(programs int, begin time.Time) bool {
	if few := 100; *surfaceTime == 0 {
		if testing.Short() {
			few = 30
		}
		return programs < few
	}
	return time.Since(begin) < *surfaceTime
}

// made makes a program.
func made(random *rand.Rand, pool [][]byte) []byte {
	var program []byte
	if len(pool) > 0 && random.IntN(3) == 0 {
		program = slices.Clone(pool[random.IntN(len(pool))])
		for range 1 + random.IntN(3) {
			if len(program) > 0 {
				program[random.IntN(len(program))] = byte(random.Uint32())
			}
		}
		return program
	}
	program = make([]byte, 16+random.IntN(80))
	for i := range program {
		program[i] = byte(random.Uint32())
	}
	binary.BigEndian.PutUint16(program[1:], uint16(random.Uint32()))
	return program
}

// keep writes a program into the corpus.
func keep(t *testing.T, program []byte) {
	dir := filepath.Join("testdata", "fuzz", "FuzzSurface")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", program)
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:16]), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// FuzzSeed reads seeds of any kind: what is wrong with one says where.
func FuzzSeed(f *testing.F) {
	f.Add([]byte(goodSeed))
	f.Add([]byte("accounts: [{name: \"1\"}]\n---\n"))
	f.Add([]byte("devices: &a [*a]\n"))
	path := filepath.Join(f.TempDir(), "seed.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		seed, err := ReadSeed(path, func(string) {})
		if (seed == nil) == (err == nil) || err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
