package main

import (
	"io"
	"os"
)

// paint colours words on a terminal, and only there. NO_COLOR turns it off.
type paint struct{ on bool }

func paintOf(w io.Writer) paint {
	return paint{on: isTerminal(w) && os.Getenv("NO_COLOR") == ""}
}

func (p paint) good(s string) string { return p.colour("32", s) }
func (p paint) bad(s string) string  { return p.colour("31", s) }
func (p paint) warn(s string) string { return p.colour("33", s) }

func (p paint) colour(code, s string) string {
	if !p.on {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
