package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// sbom writes the list of what a program is made of, as the program itself knows
// it, beside it.
func sbom(ctx context.Context, program string) error {
	path := program + ".cdx.json"
	// Without serial number and time the list of one program is one list.
	c := tool(ctx, "cyclonedx-gomod", "bin", "-json", "-std", "-noserial", "-notimestamp", "-output", path, program)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("cyclonedx-gomod: %w", err)
	}
	list, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	if err := complete(info, list); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	fmt.Printf("%s names all %d modules, each with its hash\n", path, len(info.Deps))
	return nil
}

// component is one part of a list.
type component struct {
	Name, Version, PURL string
	Hashes              []struct{ Alg, Content string }
}

// complete checks that a list names each module in a program, by version and
// hash, and the Go that built it.
func complete(info *buildinfo.BuildInfo, list []byte) error {
	var doc struct{ Components []component }
	if err := json.Unmarshal(list, &doc); err != nil {
		return err
	}
	parts := map[string]component{}
	for _, c := range doc.Components {
		parts[c.Name] = c
	}
	var errs []error
	for _, m := range info.Deps {
		if m.Replace != nil {
			errs = append(errs, fmt.Errorf("%s is replaced: what is built is not what go.mod pins", m.Path))
		}
		c, ok := parts[m.Path]
		switch {
		case !ok || c.Version != m.Version:
			errs = append(errs, fmt.Errorf("%s %s is missing", m.Path, m.Version))
		case len(c.Hashes) == 0 || m.Sum == "":
			errs = append(errs, fmt.Errorf("%s has no hash", m.Path))
		}
	}
	if c, ok := parts["std"]; !ok || !strings.Contains(info.GoVersion, strings.TrimPrefix(c.Version, "go")) {
		errs = append(errs, fmt.Errorf("the standard library of %s is missing", info.GoVersion))
	}
	if len(info.Deps) == 0 {
		errs = append(errs, errors.New("the program names no modules"))
	}
	return errors.Join(errs...)
}
