// Command errordoc writes docs/errors.md, to the file that it is given. "make
// generate" runs it.
package main

import (
	"fmt"
	"os"

	"github.com/simlatch/simlatch/internal/recipe"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: errordoc FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], recipe.Markdown(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "errordoc:", err)
		os.Exit(1)
	}
}
