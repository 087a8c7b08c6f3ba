package store

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The rules that let Citus run every statement and hold every table as they
// are (docs/operations.md, "Distribution"). Where each comes from is in
// docs/decisions.md.

// localTables are about the installation as a whole, and stay with the
// coordinator (distribute.go says why).
var localTables = []string{"account", "credential", "access", "session", "lockout", "setting", "counter", "node", "operator", "audit", "seal", "alert", "operator_session", "old_secret"}

// acrossAccounts are the statements that name no account, with the reason.
var acrossAccounts = map[string]string{
	"dueAtCarrier":    "the look for due accounts: it locks nothing, and groups by account",
	"dueAtListener":   "the same",
	"endedLeases":     "the look for leases that were left behind: it locks nothing",
	"nextAtCarrier":   "the look for the next time to turn a sandbox's clock to: it locks nothing",
	"nextAtListener":  "the same",
	"nextLease":       "the same",
	"ownerOf":         "an ICCID belongs to one account of all; these rows lie by ICCID",
	"insertOwners":    "an ICCID belongs to one account of all; these rows lie by ICCID",
	"otherOwners":     "the same, read",
	"countLow":        "the count of low pools: it locks nothing",
	"sumPools":        "the levels of all pools: it locks nothing",
	"laterAtCarrier":  "the depth of the queue: it locks nothing",
	"laterAtListener": "the same",
	"stuckInAll":      "the same",
	"pageOwners":      "the same, read",
	"sealedListeners": "the look for what an older key seals: it locks nothing",
	"sealedAnswers":   "the same",
}

// uncounted are the INSERT … SELECT … ON CONFLICT that return nothing, and
// nobody asks how many rows they changed.
var uncounted = map[string]string{
	"insertAttempts": "an attempt that is there was written before",
	"insertSIMs":     "countSIMs counts them",
}

// naturalKeys are the keys of distributed tables that have no account in them.
var naturalKeys = map[string]string{
	"sim_owner": "the ICCID, by which it is distributed: the one rule that crosses accounts",
}

func TestStatementsKeepTheRules(t *testing.T) {
	excused := map[string]bool{}
	for name, text := range statements(t) {
		if strings.HasPrefix(strings.TrimSpace(text), "SELECT") && postgresOnly.MatchString(text) {
			continue // asks the server, not our tables
		}
		for _, fault := range statementFaults(name, text) {
			t.Errorf("%s: %s\n%s", name, fault, text)
		}
		excused[name] = true
	}
	for _, list := range []map[string]string{acrossAccounts, uncounted} {
		for name := range list {
			if !excused[name] {
				t.Errorf("%s is excused and does not exist", name)
			}
		}
	}
}

var (
	comments      = regexp.MustCompile(`--[^\n]*`)
	spaces        = regexp.MustCompile(`\s+`)
	tableUse      = regexp.MustCompile(`\b(FROM|JOIN|INTO|UPDATE) ([a-z_]+)( AS)?( [a-z]+\b)?`)
	definedHere   = regexp.MustCompile(`\b([a-z]+) AS MATERIALIZED`)
	insertColumns = regexp.MustCompile(`^INSERT INTO [a-z_]+ \(([^)]*)\) (VALUES \(|SELECT )(.*)$`)
	volatileCall  = regexp.MustCompile(`(?i)\b(now|random|clock_timestamp|statement_timestamp|nextval|gen_random_uuid|setseed|current_timestamp)\b`)
	setsAccount   = regexp.MustCompile(`(UPDATE [a-z_]+ |DO UPDATE )SET ([^W]*, )?account =`)
	lateParameter = regexp.MustCompile(` (ON CONFLICT|RETURNING) .*\$\d`)
	bareSubquery  = regexp.MustCompile(`VALUES \(.*\bSELECT\b`)
)

// statementFaults says which rules a statement breaks.
func statementFaults(name, text string) (faults []string) {
	fault := func(what string) { faults = append(faults, what) }
	text = strings.TrimSpace(spaces.ReplaceAllString(comments.ReplaceAllString(text, ""), " "))
	uses := usesOf(text)
	byAccount, other := 0, 0
	for _, u := range uses {
		switch {
		case distributionColumn(u.table) == "account":
			byAccount++
			if acrossAccounts[name] == "" && !namesAccount(text, u) {
				fault(u.table + " is used without an account that is a parameter")
			}
		default:
			other++
			if distributionColumn(u.table) == "" && !slices.Contains(localTables, u.table) {
				fault(u.table + " is no table that rules_test.go knows")
			}
			if distributionColumn(u.table) != "" && acrossAccounts[name] == "" {
				fault(u.table + " does not lie by account")
			}
		}
	}
	if byAccount > 0 && other > 0 {
		fault("tables that do not lie together are used together")
	}
	if strings.Contains(text, "{skip}") || strings.Contains(text, "{wait}") || strings.Contains(text, "FOR UPDATE") {
		if byAccount != len(uses) || acrossAccounts[name] != "" {
			fault("it locks across accounts")
		}
	}
	if volatileCall.MatchString(text) {
		fault("a function with another result each time: give the value")
	}
	if setsAccount.MatchString(text) {
		fault("a row's account never changes")
	}
	if len(uses) > 0 && distributionColumn(uses[0].table) != "" {
		faults = append(faults, insertFaults(name, text)...)
	}
	return faults
}

// insertFaults are those of an INSERT into a distributed table. From a SELECT it
// runs in two steps, of which the second, that meets the conflicts, is given no
// parameters, and whose count of rows is that of the first.
func insertFaults(name, text string) (faults []string) {
	if !strings.HasPrefix(text, "INSERT") {
		return nil
	}
	if bareSubquery.MatchString(text) {
		faults = append(faults, "a subquery among VALUES: use INSERT … SELECT")
	}
	m := insertColumns.FindStringSubmatch(text)
	if m == nil {
		return append(faults, "it does not name its columns")
	}
	if strings.HasPrefix(m[2], "VALUES") {
		return faults
	}
	if lateParameter.MatchString(text) {
		faults = append(faults, "a parameter after ON CONFLICT of an INSERT … SELECT: select it, and use excluded")
	}
	if strings.Contains(text, "ON CONFLICT") && !strings.Contains(text, "RETURNING") && uncounted[name] == "" {
		faults = append(faults, "an INSERT … SELECT … ON CONFLICT without RETURNING, whose count of rows means nothing")
	}
	return faults
}

// use is one mention of a table in a statement.
type use struct {
	verb, table, alias string
	query              string // that it is in, from there on
}

// usesOf finds the tables of a statement. The first is what it changes, if it
// changes any.
func usesOf(text string) (list []use) {
	defined := map[string]bool{}
	for _, m := range definedHere.FindAllStringSubmatch(text, -1) {
		defined[m[1]] = true
	}
	text = strings.ReplaceAll(text, "DO UPDATE SET", "DO CHANGE")
	for _, at := range tableUse.FindAllStringIndex(text, -1) {
		m := tableUse.FindStringSubmatch(text[at[0]:at[1]])
		if !defined[m[2]] {
			list = append(list, use{m[1], m[2], strings.TrimSpace(m[4]), ownPart(text[at[0]:])})
		}
	}
	return list
}

// namesAccount reports whether the rows that a statement uses of a table are
// those of an account that is a parameter.
func namesAccount(text string, u use) bool {
	if u.verb == "INTO" {
		m := insertColumns.FindStringSubmatch(text)
		if m == nil || !strings.HasPrefix(m[1], "account,") {
			return false
		}
		// Selected from a table, it is the account of rows that must name it too.
		return strings.HasPrefix(m[3], "$1,") || strings.HasPrefix(m[3], "account,")
	}
	column := `(\W|^)account = \$\d`
	if u.alias != "" && strings.Contains(u.query, " "+u.alias+".") {
		column = `\b` + u.alias + `\.account = \$\d`
	}
	return regexp.MustCompile(column).MatchString(u.query)
}

// ownPart is a text up to the parenthesis that closes the query it begins in.
func ownPart(text string) string {
	depth := 0
	for i, c := range text {
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth < 0 {
				return text[:i]
			}
		}
	}
	return text
}

func distributionColumn(table string) string {
	for _, t := range distributedTables {
		if t.name == table {
			return t.column
		}
	}
	return ""
}

// TestStatementRulesAreNotBlind breaks each rule.
func TestStatementRulesAreNotBlind(t *testing.T) {
	for text, want := range map[string]string{
		`SELECT iccid FROM sim WHERE sku = $1`: "without an account",
		`SELECT id FROM request r WHERE r.account = $1 AND EXISTS (SELECT 1 FROM task t WHERE t.request = r.id)`:                                                           "task is used without",
		`UPDATE pool SET reserved = 0 WHERE sku = $1`:                                                                                                                      "without an account",
		`DELETE FROM task WHERE ended < $1`:                                                                                                                                "without an account",
		`INSERT INTO pool (sku, account) VALUES ($1, $2)`:                                                                                                                  "without an account",
		`INSERT INTO task (account, iccid) SELECT account, iccid FROM task WHERE phase = $1`:                                                                               "without an account",
		`SELECT iccid FROM task WHERE due_at < $1 ORDER BY due_at LIMIT $2 {skip}`:                                                                                         "without an account",
		`SELECT name FROM account ORDER BY name {wait}`:                                                                                                                    "locks across accounts",
		`SELECT s.iccid FROM sim s LEFT JOIN sim_owner o ON o.iccid = s.iccid WHERE s.account = $1`:                                                                        "do not lie together",
		`SELECT p.sku FROM pool p JOIN account a ON a.name = p.account WHERE p.account = $1`:                                                                               "do not lie together",
		`SELECT iccid FROM sim_owner WHERE account = $1`:                                                                                                                   "does not lie by account",
		`SELECT x FROM unknown WHERE account = $1`:                                                                                                                         "no table that",
		`UPDATE sim SET account = $2 WHERE account = $1`:                                                                                                                   "never changes",
		`UPDATE request SET time = now() WHERE account = $1`:                                                                                                               "another result",
		`INSERT INTO pool (account, sku, purchased) VALUES ($1, $2, (SELECT 1))`:                                                                                           "among VALUES",
		`INSERT INTO pool (account, sku) SELECT $1, sku FROM {each $2 sku TEXT} WHERE true ON CONFLICT (account, sku) DO UPDATE SET reserved = $3`:                         "use excluded",
		`INSERT INTO pool (account, sku) SELECT $1, sku FROM {each $2 sku TEXT} WHERE true ON CONFLICT (account, sku) DO NOTHING`:                                          "without RETURNING",
		`INSERT INTO pool (account, sku) SELECT $1, sku FROM {each $2 sku TEXT} WHERE true ON CONFLICT (account, sku) DO NOTHING RETURNING sku || $3`:                      "use excluded",
		`INSERT INTO pool SELECT $1, sku FROM {each $2 sku TEXT}`:                                                                                                          "name its columns",
		`WITH p AS MATERIALIZED (SELECT request FROM posting) SELECT r.id FROM request r JOIN p ON p.request = r.id WHERE r.account = $1`:                                  "posting is used without",
		`SELECT t.iccid FROM task t LEFT JOIN sim s ON s.iccid = t.iccid WHERE t.account = $1`:                                                                             "sim is used without",
		`SELECT (SELECT count(*) FROM sim WHERE account = $1), (SELECT count(*) FROM request)`:                                                                             "request is used without",
		`SELECT (SELECT id FROM request r WHERE r.account = $1 AND r.id = t.request), (SELECT sku FROM request r WHERE r.id = t.request) FROM task t WHERE t.account = $1`: "request is used without",
		`INSERT INTO task (account, iccid) SELECT account, iccid FROM (SELECT account, iccid FROM task LIMIT $2 {skip}) AS d WHERE account = $1`:                           "without an account",
	} {
		if faults := strings.Join(statementFaults("x", text), "; "); !strings.Contains(faults, want) {
			t.Errorf("the faults of\n%s\nare %q, want %q", text, faults, want)
		}
	}
}

func TestTablesKeepTheRules(t *testing.T) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, name := range names {
		text, err := fs.ReadFile(migrationFiles, name)
		if err != nil {
			t.Fatal(err)
		}
		tables, faults := schemaFaults(string(text))
		for _, fault := range faults {
			t.Errorf("%s: %s", name, fault)
		}
		for _, table := range tables {
			known[table] = true
		}
	}
	for _, d := range distributedTables {
		if !known[d.name] {
			t.Errorf("%s is distributed and does not exist", d.name)
		}
	}
	for _, name := range localTables {
		if !known[name] {
			t.Errorf("%s is local and does not exist", name)
		}
	}
}

var (
	createTable = regexp.MustCompile(`(?s)CREATE TABLE (\w+) \((.*?)\n\)`)
	uniqueIndex = regexp.MustCompile(`CREATE UNIQUE INDEX \w+ ON (\w+) \(([^)]*)\)`)
	uniqueKey   = regexp.MustCompile(`(PRIMARY KEY|UNIQUE) \(([^)]*)\)`)
	columnKey   = regexp.MustCompile(`(?m)^\s*(\w+)\s.*(PRIMARY KEY|UNIQUE)\b,?$`)
	foreignKey  = regexp.MustCompile(`REFERENCES`)
	wholeKey    = regexp.MustCompile(`FOREIGN KEY \(account, [^)]*\) REFERENCES (\w+) \(account, `)
	sequences   = regexp.MustCompile(`(?i)\b(serial|bigserial|generated|nextval|create trigger|create rule)\b`)
)

// schemaFaults names the tables of a migration, and the rules it breaks.
func schemaFaults(text string) (tables, faults []string) {
	text = comments.ReplaceAllString(text, "")
	for _, m := range createTable.FindAllStringSubmatch(text, -1) {
		table, body := m[1], m[2]
		tables = append(tables, table)
		column := distributionColumn(table)
		if column == "" {
			if !slices.Contains(localTables, table) {
				faults = append(faults, table+" is neither distributed nor local: say here or in distribute.go which")
			}
			continue
		}
		if column != "account" && naturalKeys[table] == "" {
			faults = append(faults, table+" is not distributed by account, and has no reason")
		}
		faults = append(faults, keyFaults(table, column, body)...)
		if len(foreignKey.FindAllString(body, -1)) != len(wholeKey.FindAllString(body, -1)) {
			faults = append(faults, table+" has a foreign key that can leave its account")
		}
		for _, key := range wholeKey.FindAllStringSubmatch(body, -1) {
			if distributionColumn(key[1]) != "account" {
				faults = append(faults, table+" has a foreign key to "+key[1]+", which does not lie with it")
			}
		}
	}
	for _, m := range uniqueIndex.FindAllStringSubmatch(text, -1) {
		if column := distributionColumn(m[1]); column != "" && !hasColumn(m[2], column) {
			faults = append(faults, m[1]+" has a unique index without "+column)
		}
	}
	if words := sequences.FindString(text); words != "" {
		faults = append(faults, "there is a "+words)
	}
	return tables, faults
}

func keyFaults(table, column, body string) (faults []string) {
	keys := 0
	for _, m := range uniqueKey.FindAllStringSubmatch(body, -1) {
		keys++
		if !hasColumn(m[2], column) {
			faults = append(faults, table+" has a unique key without "+column)
		} else if m[1] == "PRIMARY KEY" && !strings.HasPrefix(m[2], column) {
			faults = append(faults, table+" has a primary key that does not begin with "+column)
		}
	}
	for _, m := range columnKey.FindAllStringSubmatch(body, -1) {
		keys++
		if m[1] != column {
			faults = append(faults, table+" has a unique key without "+column)
		}
	}
	if keys == 0 {
		faults = append(faults, table+" has no key")
	}
	return faults
}

func hasColumn(list, column string) bool {
	return slices.Contains(strings.Split(list, ", "), column)
}

// TestTableRulesAreNotBlind breaks each rule.
func TestTableRulesAreNotBlind(t *testing.T) {
	for text, want := range map[string]string{
		"CREATE TABLE more (\n\tname TEXT NOT NULL PRIMARY KEY\n)":                                                            "neither distributed nor local",
		"CREATE TABLE pool (\n\tsku TEXT NOT NULL PRIMARY KEY,\n\taccount TEXT\n)":                                            "unique key without account",
		"CREATE TABLE pool (\n\tsku TEXT,\n\taccount TEXT,\n\tPRIMARY KEY (sku)\n)":                                           "unique key without account",
		"CREATE TABLE pool (\n\tsku TEXT,\n\taccount TEXT,\n\tPRIMARY KEY (sku, account)\n)":                                  "does not begin",
		"CREATE TABLE pool (\n\taccount TEXT,\n\tsku TEXT UNIQUE,\n\tPRIMARY KEY (account, sku)\n)":                           "unique key without account",
		"CREATE TABLE pool (\n\taccount TEXT\n)":                                                                              "has no key",
		"CREATE TABLE pool (\n\taccount TEXT REFERENCES account (name),\n\tPRIMARY KEY (account, sku)\n)":                     "can leave its account",
		"CREATE TABLE pool (\n\tPRIMARY KEY (account, sku),\n\tFOREIGN KEY (account, x) REFERENCES access (account, name)\n)": "does not lie with it",
		"CREATE UNIQUE INDEX x ON sim (imei)":                                                                                 "unique index without account",
		"CREATE TABLE pool (\n\taccount TEXT,\n\tid BIGSERIAL,\n\tPRIMARY KEY (account, id)\n)":                               "BIGSERIAL",
	} {
		if _, faults := schemaFaults(text); !strings.Contains(strings.Join(faults, "; "), want) {
			t.Errorf("the faults of\n%s\nare %q, want %q", text, faults, want)
		}
	}
}
