package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// machine describes where and when a report was made.
type machine struct {
	Time     time.Time `json:"time"`
	Commit   string    `json:"commit"`
	CPU      string    `json:"cpu"`
	Cores    int       `json:"cores"`
	Memory   string    `json:"memory"`
	System   string    `json:"system"`
	Go       string    `json:"go"`
	Postgres string    `json:"postgres,omitempty"`
	Sync     float64   `json:"fsyncMs"` // of a file of 4 KiB, median
	Before   string    `json:"loadBefore"`
	After    string    `json:"loadAfter"`
}

func (m machine) String() string {
	text := fmt.Sprintf("%s: %s, %d cores, %s; %s; %s", m.Time.Format("2006-01-02"), m.CPU, m.Cores, m.Memory, m.System, m.Go)
	if m.Postgres != "" {
		text += "; PostgreSQL " + m.Postgres
	}
	return text + fmt.Sprintf("; fsync %.2f ms; load %s before, %s after; commit %s", m.Sync, m.Before, m.After, m.Commit)
}

func newReport(ctx context.Context, b *bench) report {
	m := machine{
		Time: time.Now().UTC().Truncate(time.Second), CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(),
		Memory: field("/proc/meminfo", "MemTotal"), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), Before: loadAverage(),
	}
	if out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		m.Commit = string(bytes.TrimSpace(out))
	}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.System += " " + string(bytes.TrimSpace(kernel))
	}
	m.Sync = syncTime(b.dir)
	return report{Machine: m, Sizes: b.o.sizes.Name, Runs: b.o.sizes.runs}
}

func (r *report) finish(_ context.Context, b *bench, took time.Duration) {
	r.Seconds, r.Machine.After = took.Round(time.Second).Seconds(), loadAverage()
	if b.cluster != nil {
		r.Machine.Postgres = b.cluster.Version()
	}
}

// field is the first value of that name in a file of /proc; "unknown" elsewhere.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close() // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return "unknown"
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg") // absent elsewhere
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// syncTime is how long the disk takes to keep 4 KiB, in milliseconds.
func syncTime(dir string) float64 {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return 0
	}
	defer f.Close()
	var times []float64
	for range 50 {
		start := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0
		}
		if err := f.Sync(); err != nil {
			return 0
		}
		times = append(times, float64(time.Since(start).Microseconds())/1000)
	}
	slices.Sort(times)
	return times[len(times)/2]
}
