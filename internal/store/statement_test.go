package store

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// statements finds every SQL statement in the package's sources, by the name of
// its constant or, where it has none, its place.
func statements(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		named := map[ast.Expr]string{}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok {
				for i, v := range spec.Values {
					named[v] = spec.Names[i].Name
				}
			}
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING || !strings.HasPrefix(lit.Value, "`") {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			if isStatement.MatchString(text) {
				name := named[lit]
				if name == "" {
					name = fset.Position(lit.Pos()).String()
				}
				found[name] = text
			}
			return true
		})
	}
	if len(found) < 40 {
		t.Fatalf("found only %d statements: the search is blind", len(found))
	}
	return found
}

var isStatement = regexp.MustCompile(`^\s*(SELECT|INSERT|UPDATE|DELETE|WITH) [^.]`)

// postgresOnly are the statements that SQLite has no words for.
var postgresOnly = regexp.MustCompile(`pg_advisory|goose_db_version|sqlite_version|pg_dist|citus|to_regclass`)

// mayScan are the statements that look at all rows of a table of size, of all
// accounts or of one, because their answer takes them all.
var mayScan = map[string]bool{
	"compareRequests":       true, // verify
	"strayTasks":            true, // verify
	"sumEntitlements":       true, // verify
	"countRows":             true, // verify
	"sumPostings":           true, // verify
	"sumPurchases":          true, // verify
	"strayLeases":           true, // verify
	"countEnded":            true, // the tasks of a request with a lease that was left behind
	"takeBack":              true, // the same
	"nextLeaseEnd":          true, // the same
	"settleWhole":           true, // all tasks of requests that the batch holds whole
	"selectStuck":           true, // an operator's list
	"callbacksOfSome":       true, // the same: all tasks of some requests, 5,000 at most
	"purgeKeys":             true, // once an hour, as are the next
	"purgeable":             true,
	"purgeTasks":            true,
	"tasksLeft":             true, // those that purgeTasks has just read
	"purgeAttempts":         true,
	"purgeLockouts":         true,
	"purgeSessions":         true,
	"selectOperators":       true, // the same, and there are few
	"purgeAlerts":           true,
	"purgeOperatorSessions": true,
}

// TestPlans looks at how SQLite, which has no statistics here, would run each
// statement: none may scan a table that grows.
func TestPlans(t *testing.T) {
	s, err := Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "plans.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, text := range statements(t) {
		if postgresOnly.MatchString(text) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			plan, err := collect(s.reader(t.Context()), func(scan func(...any) error) (line string, err error) {
				var id, parent, unused int
				err = scan(&id, &parent, &unused, &line)
				return line, err
			}, "EXPLAIN QUERY PLAN "+text, make([]any, highestParameter(text))...)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range plan {
				if badPlan(line) && !mayScan[name] {
					t.Errorf("%s\nin the plan of\n%s\n%s", line, text, strings.Join(plan, "\n"))
				}
			}
			if testing.Verbose() {
				t.Log(strings.Join(plan, "\n"))
			}
		})
	}
}

var parameter = regexp.MustCompile(`\$(\d+)`)

func highestParameter(text string) (highest int) {
	for _, m := range parameter.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.Atoi(m[1])
		highest = max(highest, n)
	}
	return highest
}

// tables that grow, by the names and aliases that plans give them.
var growing = `(sim|s|sim_owner|o|task|t|request|r|posting|attempt|idempotency|purchase|session|credential|lockout|access|upstream|upstream_task|operator|audit|alert|operator_session|old_secret|o)`

var (
	scans = regexp.MustCompile(`^SCAN ` + growing + `\b`)
	// An index whose first column alone is used leads through all rows of an
	// account, or of a request.
	accountOnly = regexp.MustCompile(fmt.Sprintf(`^SEARCH %s USING .*\((account|phase)=\?\)`, growing))
	// An index made for the one statement means a loop the wrong way round.
	automatic = regexp.MustCompile(`AUTOMATIC`)
	// An index of the few rows that wait for something may be read through.
	waiting = regexp.MustCompile(`USING (COVERING )?INDEX (audit_unsealed|alert_due)\b`)
	halfKey = regexp.MustCompile(`^SEARCH (task|t|attempt) USING PRIMARY KEY \(account=\? AND request=\?\)`)
)

func badPlan(line string) bool {
	return !waiting.MatchString(line) && (scans.MatchString(line) || accountOnly.MatchString(line) || automatic.MatchString(line) || halfKey.MatchString(line))
}
