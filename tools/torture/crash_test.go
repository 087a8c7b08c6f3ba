package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/store/storetest/pgcluster"
)

// program builds the server once, with the points at which it dies, or without.
var program = map[bool]func() (string, error){true: build("-tags", "crash"), false: build()}

func build(flags ...string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "torture") // removed by TestMain
		if err != nil {
			return "", err
		}
		name := filepath.Join(dir, "simlatch")
		cmd := exec.Command("go", slices.Concat([]string{"build", "-o", name}, flags, []string{"../../cmd/simlatch"})...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building the server: %w\n%s", err, out)
		}
		building.Lock()
		built = append(built, dir)
		building.Unlock()
		return name, nil
	})
}

var (
	building sync.Mutex // guards built
	built    []string   // directories to be removed
)

func TestMain(m *testing.M) {
	status := m.Run()
	for _, dir := range built {
		_ = os.RemoveAll(dir) // it is temporary
	}
	os.Exit(status)
}

func server(t *testing.T, crashing bool) string {
	t.Helper()
	name, err := program[crashing]()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestCrashes has the server die at every point on SQLite, and at some on
// PostgreSQL. make torture does more of it.
func TestCrashes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	o := options{binary: server(t, true), seed: 1, soon: true, out: &testWriter{t: t}}
	list := []*matrix{{engine: "sqlite", seeds: 7, at: 2}}
	postgres := os.Getenv("TEST_POSTGRES")
	if asked, ok := pgcluster.Asked(postgres); ok {
		c, err := pgcluster.Start(t.Context(), asked)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Stop() }) // the process's end ends it too
		postgres = c.URL()
	}
	if postgres != "" {
		list = append(list, &matrix{engine: "postgres", seeds: 2, at: 2, server: postgres})
	}
	var group sync.WaitGroup
	for _, m := range list {
		m.o, m.dir = &o, t.TempDir()
		group.Go(func() { m.run(t.Context()) })
	}
	group.Wait()
	for _, m := range list {
		var tb table
		tb.add("crash", m.rows())
		if err := errors.Join(m.failed, tb.verdict()); err != nil {
			t.Error(err)
		}
		n := 0
		for _, r := range m.deaths {
			n += r.Tried
		}
		t.Logf("%s: %d crashes at %d points, %d devices and more acknowledged", m.engine, n, len(m.deaths), m.sum.Work)
	}
}

// testWriter is a test's log.
type testWriter struct{ t *testing.T }

func (w *testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// TestPoints holds the table of points against the code: each is named, explained
// and passed somewhere.
func TestPoints(t *testing.T) {
	used := map[string]bool{}
	err := filepath.WalkDir("../../internal", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if ok && text(call.Fun) == "crash.At" {
				used[text(call.Args[0])] = true
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for i, info := range crash.Points() {
		if info.Name == "" || info.Is == "" || names[info.Name] {
			t.Errorf("point %d has no name, no text, or the name of another: %+v", i, info)
		}
		names[info.Name] = true
	}
	want := map[string]bool{} // the constants, as the code writes them
	f, err := parser.ParseFile(token.NewFileSet(), "../../internal/crash/crash.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		for i := 0; ok && g.Tok == token.CONST && i < len(g.Specs); i++ {
			for _, id := range g.Specs[i].(*ast.ValueSpec).Names {
				if id.IsExported() {
					want["crash."+id.Name] = true
				}
			}
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(used))); diff != "" {
		t.Errorf("points named and points in the code (-named +code):\n%s", diff)
	}
	if len(want) != len(names) {
		t.Errorf("%d points are named and %d are in the table", len(want), len(names))
	}
}

func text(e ast.Expr) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if x, ok := s.X.(*ast.Ident); ok {
		return x.Name + "." + s.Sel.Name
	}
	return ""
}

// TestOrdinaryBuild: nothing of the points is in the program that is shipped.
func TestOrdinaryBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two programs")
	}
	for crashing, want := range map[bool]bool{true: true, false: false} {
		program, err := os.ReadFile(server(t, crashing))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(program), "CRASH_AT"); got != want {
			t.Errorf("built with points: %t; CRASH_AT in the program: %t", crashing, got)
		}
	}
}

// TestPlan: a seed's plan is always the same, and seeds that follow each other have
// all points between them.
func TestPlan(t *testing.T) {
	for _, engine := range []string{"sqlite", "postgres"} {
		seen := map[string]int{}
		for seed := range uint64(40) {
			p := planOf(seed, engine)
			if diff := cmp.Diff(fmt.Sprintf("%+v", p), fmt.Sprintf("%+v", planOf(seed, engine))); diff != "" {
				t.Fatalf("seed %d has two plans:\n%s", seed, diff)
			}
			for _, l := range slices.Concat(p.first, p.lives) {
				seen[l.name()]++
			}
		}
		for _, info := range crash.Points() {
			if n := seen[info.Name]; (n == 0) != (info.SQLite && engine != "sqlite") {
				t.Errorf("%s: in 40 seeds %d servers die at %s", engine, n, info.Name)
			}
		}
	}
}

// TestHarmIsSeen: whatever is lost or done twice behind the server's back is found,
// and nothing is where nothing was.
func TestHarmIsSeen(t *testing.T) {
	if testing.Short() {
		t.Skip("runs servers for some seconds")
	}
	t.Parallel()
	dir := t.TempDir()
	p := planOf(3, "sqlite")
	p.lives = p.lives[:2]
	p.atOnce()
	w, end, err := newWorld(t.Context(), p, server(t, true), dir, "sqlite:"+filepath.Join(dir, "simlatch.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if _, err := w.through(nil); err != nil {
		t.Fatal(err)
	}
	if err := w.check(t.Context()); err != nil || w.harm() != "" {
		t.Fatalf("unharmed: %v\n%s", err, w.harm())
	}
	for name, h := range harms() {
		t.Run(name, func(t *testing.T) {
			harmed := w.copy(t)
			for _, text := range h.sql {
				harmed.execute(t, strings.ReplaceAll(text, "{bought}", w.acknowledgedPurchase(t)))
			}
			if h.books != nil {
				h.books(harmed)
			}
			if err := harmed.check(t.Context()); err != nil {
				t.Fatal(err)
			}
			r := harmed.row
			if got := []bool{r.Lost > 0, r.Double > 0, r.Wrong > 0}; !slices.Equal(got, h.want) {
				t.Errorf("lost, double, wrong = %v, want %v\n%s", got, h.want, harmed.harm())
			}
		})
	}
}

// harm is done behind the server's back.
type harm struct {
	sql   []string
	books func(*world)
	want  []bool // lost, double, wrong
}

func harms() map[string]harm {
	const some = `(SELECT id FROM request WHERE action = 'assign' AND succeeded > 0 ORDER BY id LIMIT 1)`
	return map[string]harm{
		"a request that was acknowledged is gone": {sql: []string{
			`DELETE FROM task WHERE request = ` + some, `DELETE FROM posting WHERE request = ` + some, `DELETE FROM request WHERE id = ` + some,
		}, want: []bool{true, false, true}},
		"a license is gone": {sql: []string{
			`UPDATE sim SET sku = '' WHERE iccid = (SELECT iccid FROM sim WHERE sku <> '' LIMIT 1)`,
		}, want: []bool{true, false, true}},
		"a license is there twice": {sql: []string{
			`UPDATE sim SET sku = 'SIMSec-IoT' WHERE iccid = (SELECT iccid FROM sim WHERE sku = '' LIMIT 1)`,
		}, want: []bool{false, true, true}},
		"a SIM that was imported is gone": {sql: []string{
			`DELETE FROM sim WHERE iccid = (SELECT iccid FROM sim WHERE sku = '' ORDER BY number DESC LIMIT 1)`,
		}, want: []bool{true, true, false}},
		"a purchase is gone": {sql: []string{
			`UPDATE pool SET purchased = purchased - (SELECT units FROM purchase p WHERE account || ' ' || reference = '{bought}')
				WHERE (account, sku) = (SELECT account, sku FROM purchase WHERE account || ' ' || reference = '{bought}')`,
			`DELETE FROM purchase WHERE account || ' ' || reference = '{bought}'`,
		}, want: []bool{true, false, false}},
		"a purchase is there twice": {sql: []string{
			`INSERT INTO purchase (account, sku, number, units, reference, reason, time)
				SELECT account, sku, 1000000, units, reference, reason, time FROM purchase WHERE reason = 'torture' LIMIT 1`,
		}, want: []bool{false, true, true}},
		"an entry of the audit is gone": {sql: []string{
			`DELETE FROM audit WHERE number = (SELECT max(number) FROM audit)`,
		}, want: []bool{false, false, true}},
		"a callback was not sent": {books: func(w *world) {
			for id, of := range w.sink.came {
				w.sink.came[id] = map[string]*told{}
				clear(of)
				return
			}
		}, want: []bool{true, false, false}},
		"a request was taken that nobody was told of": {books: func(w *world) {
			for id := range w.requests {
				delete(w.requests, id)
				return
			}
		}, want: []bool{false, true, true}},
		"the carrier made no license": {books: func(w *world) {
			for iccid := range w.carrier.holds {
				delete(w.carrier.holds, iccid)
				return
			}
		}, want: []bool{true, false, false}},
	}
}

// copy is the world with a database of its own, in what is known of it too.
func (w *world) copy(t *testing.T) *world {
	t.Helper()
	c := &world{ctx: t.Context(), plan: w.plan, binary: w.binary, dir: w.dir, books: w.books}
	c.requests = maps.Clone(w.requests)
	c.carrier = &carrier{w: c, holds: maps.Clone(w.carrier.holds)}
	c.sink = &sink{w: c, came: map[string]map[string]*told{}}
	for id, of := range w.sink.came {
		c.sink.came[id] = maps.Clone(of)
	}
	name := filepath.Join(t.TempDir(), "simlatch.db")
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(strings.TrimPrefix(w.database, "sqlite:") + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(name+suffix, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c.database = "sqlite:" + name
	return c
}

// acknowledgedPurchase is one that must be there, as its account and reference.
func (w *world) acknowledgedPurchase(t *testing.T) string {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(w.bought)) {
		if w.bought[name] == acknowledged {
			return name
		}
	}
	t.Fatal("no purchase was acknowledged")
	return ""
}

func (w *world) execute(t *testing.T, text string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.TrimPrefix(w.database, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r, err := db.ExecContext(context.WithoutCancel(t.Context()), text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("%s changed nothing (%v)", text, err)
	}
}

// TestForgettingDiskIsSeen: where commits vanish with a server's death, as they would
// with the power if a commit did not wait for the disk, that is seen from outside.
func TestForgettingDiskIsSeen(t *testing.T) {
	if testing.Short() {
		t.Skip("runs servers for some seconds")
	}
	t.Parallel()
	dir := t.TempDir()
	p := planOf(5, "sqlite")
	p.lives = slices.Repeat([]life{{end: endKill, after: 300 * time.Millisecond}}, 3)
	w, end, err := newWorld(t.Context(), p, server(t, true), dir, "sqlite:"+filepath.Join(dir, "simlatch.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	w.patience = 3 * time.Second
	kept := map[string][]byte{}
	w.between = func(i int) {
		for _, name := range []string{"simlatch.db", "simlatch.db-wal"} {
			name := filepath.Join(dir, name)
			switch i {
			case 0:
				kept[name], _ = os.ReadFile(name) // there may be no log
			case 1:
				if err := os.WriteFile(name, kept[name], 0o600); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if _, err := w.through(nil); err != nil {
		t.Fatal(err)
	}
	if err := w.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.row.Lost == 0 {
		t.Errorf("the work of a whole life is gone, and nothing was found lost\n%s", w.harm())
	}
	t.Logf("found %d lost, %d double, %d wrong", w.row.Lost, w.row.Double, w.row.Wrong)
}

// TestCarrierSeesDoubles: a license that is made twice, or taken from a SIM that has
// none, is seen where it is made.
func TestCarrierSeesDoubles(t *testing.T) {
	w := &world{}
	w.carrier = &carrier{w: w, truth: map[string]string{}, holds: map[string]string{}, owed: map[string]bool{}, account: map[string]string{}}
	task := func(key, action string) {
		k := carrierTask{Key: key, Action: action}
		k.Device.ICCID = "1"
		w.carrier.do(k)
	}
	task("a/1", "assign")
	task("a/1", "assign") // asked again
	if w.row.Double != 0 {
		t.Errorf("asked again under one key: %v", w.faults)
	}
	task("b/1", "assign")
	if w.row.Double != 1 {
		t.Errorf("assigned under two keys: %d doubles, want 1", w.row.Double)
	}
	task("c/1", "unassign")
	task("d/1", "unassign")
	if w.row.Double != 2 {
		t.Errorf("taken away twice: %d doubles, want 2", w.row.Double)
	}
}
