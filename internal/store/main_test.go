package store_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain keeps the model test short; -rapid.checks asks for more.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
