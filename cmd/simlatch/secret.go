package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/simlatch/simlatch/internal/auth"
)

// maxSecret is more than any password or key has.
const maxSecret = 4096

// secretSource says where a secret comes from: a file, an environment variable,
// a file that a variable names, a stored profile, or the terminal. There is no flag that holds a
// secret itself, since other users of the machine can read command lines.
type secretSource struct {
	what string // what to call it, such as "password"
	file string // from the flag; "-" is standard input
	flag string // the flag, for messages
	env  string // the variable; with _FILE behind it, the one that names a file
	// stored is what a profile holds; it spares asking at the terminal.
	stored auth.Secret
	// twice asks at the terminal a second time: for a new secret, which a slip
	// of a finger would otherwise make unknown to all.
	twice bool
}

// read reads the secret. Prompts go to prompts, and only when in is a terminal.
func (s secretSource) read(in io.Reader, prompts io.Writer) (auth.Secret, error) {
	switch file := os.Getenv(s.env + "_FILE"); {
	case s.file == "-":
		return s.from(in, "standard input")
	case s.file != "":
		return s.fromFile(s.file)
	case os.Getenv(s.env) != "":
		return auth.Secret(os.Getenv(s.env)), nil
	case file != "":
		return s.fromFile(file)
	case s.stored != "":
		return s.stored, nil
	}
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", usagef("no %s: standard input is not a terminal; give --%s FILE (- for standard input), %s_FILE or %s",
			s.what, s.flag, s.env, s.env)
	}
	return s.ask(f, prompts)
}

// given reports whether the secret is somewhere, so that nobody need be asked.
func (s secretSource) given() bool {
	return s.file != "" || s.stored != "" || os.Getenv(s.env) != "" || os.Getenv(s.env+"_FILE") != ""
}

func (s secretSource) fromFile(path string) (auth.Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading the %s: %w", s.what, err)
	}
	defer f.Close()
	return s.from(f, path)
}

// from reads the secret as the whole of r, less the line's end that editors and
// echo put there.
func (s secretSource) from(r io.Reader, where string) (auth.Secret, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("reading the %s from %s: %w", s.what, where, err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case text == "":
		return "", fmt.Errorf("the %s in %s is empty", s.what, where)
	case len(b) > maxSecret:
		return "", fmt.Errorf("the %s in %s is longer than %d bytes", s.what, where, maxSecret)
	case strings.ContainsAny(text, "\r\n"):
		return "", fmt.Errorf("the %s in %s has more than one line", s.what, where)
	}
	return auth.Secret(text), nil
}

func (s secretSource) ask(tty *os.File, prompts io.Writer) (auth.Secret, error) {
	first, err := s.prompt(tty, prompts, s.what+": ")
	if err != nil || !s.twice {
		return first, err
	}
	again, err := s.prompt(tty, prompts, s.what+" again: ")
	if err != nil {
		return "", err
	}
	if first != again {
		return "", errors.New("the two are not the same; nothing was changed")
	}
	return first, nil
}

func (s secretSource) prompt(tty *os.File, prompts io.Writer, text string) (auth.Secret, error) {
	fmt.Fprint(prompts, text)
	b, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(prompts)
	if err != nil {
		return "", fmt.Errorf("reading the %s from the terminal: %w", s.what, err)
	}
	if len(b) == 0 {
		return "", fmt.Errorf("the %s is empty; nothing was changed", s.what)
	}
	return auth.Secret(b), nil
}
