package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// TestMain makes the test program the references when it is started as such.
func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// tinySizes measure nothing worth knowing; they show that everything runs.
func tinySizes() sizes {
	return sizes{
		Name: "tiny", runs: 1, large: 40, endToEnd: 2, accept: 2, small: 2, hot: 20,
		inventory: 200, growth: 400, growthSmall: 200, growthDevices: 50, idle: time.Millisecond,
		retries: 40, retryInterval: 300 * time.Millisecond,
	}
}

// TestEveryRow runs all groups at a size that shows nothing but that they run.
func TestEveryRow(t *testing.T) {
	if testing.Short() {
		t.Skip("starts some forty servers")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "simlatch")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/simlatch").CombinedOutput(); err != nil {
		t.Fatalf("building the server: %v\n%s", err, out)
	}
	o := options{
		binary: binary, postgres: os.Getenv("TEST_POSTGRES"), forgetful: true,
		only: regexp.MustCompile(""), sizes: tinySizes(),
	}
	b, err := newBench(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.run(t.Context())
	if err != nil {
		t.Error(err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
	want := 24
	if o.postgres == "" {
		want = 13
	}
	if len(r.Rows) != want {
		t.Errorf("there are %d rows, want %d", len(r.Rows), want)
	}
	for _, row := range r.Rows {
		if !(row.Least > 0 && row.Least <= row.Median && row.Median <= row.Most) && row.Unit != "s" && row.Unit != "µs" {
			t.Errorf("%s: %v to %v, median %v", row.Work, row.Least, row.Most, row.Median)
		}
	}
	path := filepath.Join(dir, "bench.json")
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var again report
	if err := json.Unmarshal(text, &again); err != nil || len(again.Rows) != len(r.Rows) || again.Machine.CPU == "" {
		t.Errorf("the report cannot be read again (%v):\n%s", err, text)
	}
}

func TestRow(t *testing.T) {
	r := newRow("work", "devices/s", "bare", []float64{50, 30, 40}, []float64{100, 100, 50}).wanted(0.4, 0.6)
	if r.Median != 0.5 || r.Least != 0.3 || r.Most != 0.8 || r.Met != "floor" || r.Less {
		t.Errorf("newRow = %+v", r)
	}
	for met, value := range map[string]float64{"aim": 70, "floor": 100, "no": 200} {
		if r := newRow("memory", "MiB", "", []float64{value}, nil).wanted(150, 80); r.Met != met || !r.Less {
			t.Errorf("%v MiB: %+v, want %s", value, r, met)
		}
	}
}
