package simlatch_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// mayImport says which packages of ours each package may import. It is the
// table of docs/architecture.md: imports point down through these rows, never
// up and never sideways (the arrows inside a row are drawn), and within that go
// only where this table lets them.
//
//	4   cmd/simlatch   m2m/m2mtest   tools
//	3   server
//	2   api   operator   console   sandbox   provision   carrier   callback   load   bulk
//	1   inventory → store → auth
//	0   license   m2m   operator/client   exchange   recipe   openapi   crash
//
// A package may be named here before it exists. Tests are exempt: they may
// import what they like, storetest above all.
var mayImport = map[string][]string{
	"internal/license":         {},
	"m2m":                      {},
	"internal/operator/client": {},
	"internal/exchange":        {},
	"internal/recipe":          {},
	"internal/openapi":         {},
	"internal/tracing":         {},
	"internal/crash":           {},

	"internal/auth":      {"internal/license"},
	"internal/store":     {"internal/license", "internal/auth", "internal/crash"},
	"internal/inventory": {"internal/license", "internal/store"},

	"internal/api":       {"internal/license", "internal/auth", "internal/openapi", "internal/tracing", "internal/crash", "m2m"},
	"internal/provision": {"internal/license", "internal/tracing", "internal/crash"},
	"internal/carrier":   {"internal/license", "internal/tracing", "m2m"},
	"internal/callback":  {"internal/license", "internal/tracing", "internal/crash", "m2m"},
	"internal/operator":  {"internal/license", "internal/auth", "internal/store", "internal/inventory", "internal/openapi", "internal/operator/client", "internal/crash", "m2m"},
	"internal/sandbox":   {"internal/license", "m2m", "internal/recipe"},
	"internal/console":   {"internal/license", "internal/auth", "internal/operator/client"},

	"internal/server": {
		"internal/license", "internal/auth", "internal/store", "internal/api", "internal/provision",
		"internal/carrier", "internal/callback", "internal/operator", "internal/sandbox", "internal/console",
		"internal/inventory", "m2m", "internal/operator/client", "internal/exchange", "internal/tracing",
	},

	"internal/load": {"m2m"},
	"internal/bulk": {"internal/license", "m2m"},

	"cmd/simlatch": {
		"internal/server", "internal/store", "internal/auth", "internal/license", "internal/inventory", "internal/operator/client",
		"internal/exchange", "internal/load", "internal/bulk", "m2m",
	},
	"m2m/m2mtest": {"internal/server", "m2m"},

	// What only tests and the tools use.
	"internal/openapi/contract": {"internal/openapi"},
	"internal/store/storetest": {
		"internal/license", "internal/auth", "internal/store", "internal/store/storetest/pgcluster",
	},
	"internal/store/storetest/pgcluster": {},
	"tools/gate":                         {"internal/store/storetest/pgcluster"},
	"tools/errordoc":                     {"internal/recipe"},
	"tools/fuzz":                         {},
	"tools/supply":                       {},
	"tools/cluster":                      {"internal/load", "internal/store/storetest/pgcluster", "m2m"},
	"tools/torture": {
		"internal/crash", "internal/license", "internal/load", "internal/operator/client", "internal/store", "internal/store/storetest/pgcluster", "m2m",
	},
	"internal/simulation": {
		"internal/license", "internal/auth", "internal/store", "internal/api", "internal/provision", "internal/callback", "m2m",
	},
	"tools/simulation": {"internal/simulation"},
	"tools/bench":      {"internal/server", "internal/load", "internal/store/storetest/pgcluster", "m2m"},
}

// onlyStandard are the packages that build on nothing but the standard library:
// the domain, and what other people's programs import.
var onlyStandard = []string{"internal/license", "m2m"}

const module = "github.com/simlatch/simlatch"

func TestImports(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		allowed, known := mayImport[f.dir]
		if !known {
			t.Errorf("%s: package %s has no row in the import table of imports_test.go", f.name, f.dir)
			continue
		}
		for _, path := range f.imports() {
			ours, isOurs := strings.CutPrefix(path, module+"/")
			switch {
			case isOurs && !slices.Contains(allowed, ours):
				t.Errorf("%s: %s may not import %s", f.name, f.dir, ours)
			case !isOurs && slices.Contains(onlyStandard, f.dir) && strings.Contains(path, "."):
				t.Errorf("%s: %s may import only the standard library, not %s", f.name, f.dir, path)
			}
		}
	}
}

// TestImportTable holds the table against itself: what is imported has a row.
func TestImportTable(t *testing.T) {
	for dir, allowed := range mayImport {
		for _, path := range allowed {
			if _, known := mayImport[path]; !known {
				t.Errorf("%s may import %s, which has no row", dir, path)
			}
		}
	}
}

// TestPackageComments: every package has one comment, in one file, that says
// what it is for.
func TestPackageComments(t *testing.T) {
	comments := make(map[string][]string) // the files that have one, by directory
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		comments[f.dir] = append(comments[f.dir], nil...)
		if f.syntax.Doc == nil {
			continue
		}
		comments[f.dir] = append(comments[f.dir], f.name)
		begin := "Package " + f.syntax.Name.Name + " "
		if f.syntax.Name.Name == "main" {
			begin = "Command "
		}
		if !strings.HasPrefix(f.syntax.Doc.Text(), begin) {
			t.Errorf("%s: the package comment should begin with %q", f.name, begin)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(comments)) {
		if n := len(comments[dir]); n != 1 {
			t.Errorf("package %s has %d package comments, want 1 (%s)", dir, n, strings.Join(comments[dir], ", "))
		}
	}
}
