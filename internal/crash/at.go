//go:build !crash

package crash

// At does nothing in this build.
func At(Point) {}

// Migrations are none in this build.
func Migrations() []string { return nil }
