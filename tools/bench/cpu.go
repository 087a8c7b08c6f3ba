package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// meter adds up the CPU time of processes, round by round.
type meter struct {
	read   func() (float64, error) // seconds so far
	before float64
	rounds []float64 // microseconds a device
}

// metered runs a contender between two readings of a meter for each of n
// devices.
func metered(c contender, n int, meters ...*meter) contender {
	run := c.run
	c.run = func(ctx context.Context) (float64, error) {
		var err error
		for _, m := range meters {
			if m.before, err = m.read(); err != nil {
				return 0, err
			}
		}
		v, err := run(ctx)
		if err != nil {
			return 0, err
		}
		for _, m := range meters {
			after, err := m.read()
			if err != nil {
				return 0, err
			}
			// Less than a tick counts as one: nothing takes no time.
			m.rounds = append(m.rounds, 1e6*max(after-m.before, ticks)/float64(n))
		}
		return v, nil
	}
	return c
}

// counted are the rounds without the one that warms up.
func (m *meter) counted() []float64 { return m.rounds[1:] }

// ticks is the kernel's unit of CPU time in /proc, in seconds.
const ticks = 0.01

// times reads a process's CPU time in seconds, that of its children that have
// ended apart, and its parent. All are zero for one that has ended.
func times(pid int) (own, children float64, parent int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, 0
	}
	// The name, in parentheses, may hold anything.
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	at := func(i int) float64 { v, _ := strconv.ParseFloat(f[i], 64); return v * ticks }
	parent, _ = strconv.Atoi(f[1]) // the kernel writes numbers
	return at(11) + at(12), at(13) + at(14), parent
}

// processMeter measures one process.
func processMeter(p *process) *meter {
	return &meter{read: func() (float64, error) {
		own, _, _ := times(p.cmd.Process.Pid)
		return own, nil
	}}
}

// postgresMeter measures a PostgreSQL server on this machine: the postmaster
// and all of its processes.
func (b *bench) postgresMeter(ctx context.Context) (*meter, error) {
	db, err := sql.Open("pgx", b.server)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	var backend int
	if err := db.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		return nil, err
	}
	_, _, postmaster := times(backend)
	if postmaster == 0 {
		return nil, fmt.Errorf("PostgreSQL's process %d is not on this machine", backend)
	}
	return &meter{read: func() (float64, error) {
		own, ended, _ := times(postmaster)
		total := own + ended
		all, err := filepath.Glob("/proc/[0-9]*")
		for _, name := range all {
			pid, _ := strconv.Atoi(filepath.Base(name)) // the pattern sees to it
			if own, _, parent := times(pid); parent == postmaster {
				total += own
			}
		}
		return total, err
	}}, nil
}
