//go:build crash

package crash

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// plan is when this process dies, and what it has passed.
type plan struct {
	at      Point // -1 is nowhere
	passage int64
	log     *os.File // nil without one
	passed  [points]atomic.Int64
}

// thePlan is read from the environment, once: nobody hands it through, since
// nothing but a test knows of it. What it does not understand ends the process.
var thePlan = sync.OnceValue(func() *plan {
	p := &plan{at: -1}
	if name := os.Getenv("CRASH_LOG"); name != "" {
		var err error
		if p.log, err = os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			panic(err)
		}
	}
	name, count, counted := strings.Cut(os.Getenv("CRASH_AT"), ":")
	p.passage = 1
	if counted {
		var err error
		if p.passage, err = strconv.ParseInt(count, 10, 64); err != nil {
			panic("CRASH_AT: " + err.Error())
		}
	}
	if name == "" {
		return p
	}
	for i, info := range Points() {
		if info.Name == name {
			p.at = Point(i)
			return p
		}
	}
	panic("CRASH_AT: there is no point " + name)
})

// At dies where the environment says so, and never returns then.
func At(at Point) {
	p := thePlan()
	n := p.passed[at].Add(1)
	if n == 1 {
		p.note("passed", at)
	}
	if at != p.at || n < p.passage {
		return
	}
	if n == p.passage {
		p.note("died", at)
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		if err != nil {
			os.Exit(137)
		}
	}
	select {} // whoever comes here after that gets no further either
}

// Migrations are what CRASH_MIGRATIONS, a number, adds to the schema's own: so there
// is something to migrate on a database that is full of work. They change the table
// of the work.
func Migrations() (list []string) {
	name := os.Getenv("CRASH_MIGRATIONS")
	if name == "" {
		return nil
	}
	n, err := strconv.Atoi(name)
	if err != nil {
		panic("CRASH_MIGRATIONS: " + err.Error())
	}
	for i := range n {
		list = append(list, fmt.Sprintf("ALTER TABLE task ADD COLUMN crash_%[1]d BIGINT NOT NULL DEFAULT 0;\n"+
			"UPDATE task SET crash_%[1]d = place;\nCREATE TABLE crash_%[1]d (v BIGINT NOT NULL);\n", i))
	}
	return list
}

// note adds a line to the log. It is one write to a file that others add to.
func (p *plan) note(what string, at Point) {
	if p.log != nil {
		_, _ = fmt.Fprintln(p.log, what, Points()[at].Name) // read by who counts, and misses it
	}
}
