package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const envPrefix = "SIMLATCH_"

// Annotations of flags.
const (
	settingFlag = "simlatch_setting" // it may stand in the environment and in the file of --config
	secretFlag  = "simlatch_secret"  // its value is masked, and may stand in a file of its own
	originFlag  = "simlatch_origin"  // where its value came from, when not from the command line
)

// markSetting says that a flag is a setting.
func markSetting(flags *pflag.FlagSet, name string) {
	_ = flags.SetAnnotation(name, settingFlag, []string{"true"}) // fails only for a flag that is not there
}

// markSecret says that a flag's value is a secret: NAME_FILE may name a file
// that holds it, and config show masks it.
func markSecret(flags *pflag.FlagSet, name string) {
	_ = flags.SetAnnotation(name, secretFlag, []string{"true"}) // fails only for a flag that is not there
}

// fillFlags gives each setting among the flags of cmd that was not set on the
// command line the value that the environment or, failing that, the file of
// --config has for it. Other flags say what a command is to do once.
func fillFlags(cmd *cobra.Command) error {
	environ, err := environment()
	if err != nil {
		return err
	}
	flags := cmd.Flags()
	path, _ := flags.GetString("config") // the root's
	if path == "" {
		path = environ.String("config")
	}
	settings, err := readSettings(cmd.Root(), path)
	if err != nil {
		return withStatus(exitUsage, err)
	}
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		switch {
		case f.Changed || f.Annotations[settingFlag] == nil:
		case environ.Exists(f.Name):
			errs = append(errs, fill(flags, f, environ, variable(f.Name)))
		case f.Annotations[secretFlag] != nil && environ.Exists(f.Name+"-file") && flags.Lookup(f.Name+"-file") == nil:
			errs = append(errs, fillFromFile(flags, f, environ.String(f.Name+"-file")))
		case settings.Exists(f.Name):
			errs = append(errs, fill(flags, f, settings, path))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return withStatus(exitUsage, err)
	}
	return nil
}

// environment reads our environment variables, under the names of the flags.
func environment() (*koanf.Koanf, error) {
	k := koanf.New(".")
	err := k.Load(env.Provider(".", env.Opt{
		Prefix: envPrefix,
		TransformFunc: func(key, value string) (string, any) {
			if value == "" {
				return "", nil // as if it were not set
			}
			return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(key, envPrefix), "_", "-")), value
		},
	}), nil)
	if err != nil {
		return nil, fmt.Errorf("reading the environment: %w", err)
	}
	return k, nil
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readSettings reads the file of --config. A setting that no command has is
// refused: it is most likely misspelt.
func readSettings(root *cobra.Command, path string) (*koanf.Koanf, error) {
	k := koanf.New(".")
	if path == "" {
		return k, nil
	}
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return nil, fmt.Errorf("reading the settings in %s: %w", path, err)
	}
	for _, key := range k.Keys() {
		if !isSetting(root, key) {
			return nil, fmt.Errorf("%s: unknown setting %q; settings are named like flags, see simlatch serve --help", path, key)
		}
	}
	return k, nil
}

// isSetting reports whether any command has a setting of that name.
func isSetting(cmd *cobra.Command, name string) bool {
	for _, flags := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
		if f := flags.Lookup(name); f != nil && f.Annotations[settingFlag] != nil {
			return true
		}
	}
	return slices.ContainsFunc(cmd.Commands(), func(c *cobra.Command) bool { return isSetting(c, name) })
}

// fill sets a flag from a source that has a value for it.
func fill(flags *pflag.FlagSet, f *pflag.Flag, from *koanf.Koanf, origin string) error {
	var err error
	list, isList := f.Value.(pflag.SliceValue)
	switch value := from.Get(f.Name).(type) {
	case []any:
		if !isList {
			return fmt.Errorf("%s: %s takes one value", origin, f.Name)
		}
		texts := make([]string, 0, len(value))
		for _, v := range value {
			texts = append(texts, fmt.Sprint(v))
		}
		if err = list.Replace(texts); err == nil {
			f.Changed = true
		}
	default:
		err = flags.Set(f.Name, fmt.Sprint(value))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", origin, err)
	}
	return flags.SetAnnotation(f.Name, originFlag, []string{origin})
}

// fillFromFile sets a flag to what a file holds.
func fillFromFile(flags *pflag.FlagSet, f *pflag.Flag, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%s_FILE: %w", variable(f.Name), err)
	}
	if err := flags.Set(f.Name, strings.TrimRight(string(text), "\r\n")); err != nil {
		return fmt.Errorf("%s_FILE: %w", variable(f.Name), err)
	}
	return flags.SetAnnotation(f.Name, originFlag, []string{variable(f.Name) + "_FILE " + path})
}

func newConfigCommand() *cobra.Command {
	var form string
	show := &cobra.Command{
		Use:   "show",
		Short: "Print each setting of the server and where it came from",
		Long: `Print each setting that simlatch serve would run with, and where it came from:
a flag given here, an environment variable, the file of --config, or the
default. Secrets are masked.`,
		Example: `  SIMLATCH_LISTEN=127.0.0.1:9090 simlatch config show --config simlatch.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return writeList(cmd.OutOrStdout(), form, settingColumns, settingsOf(cmd.Flags()))
		},
	}
	addServeFlags(show.Flags())
	outputFlag(show, &form)
	return group("config", "Show the server's settings", show)
}

// setting is a setting as config show prints it.
type setting struct{ name, value, origin string }

var settingColumns = []column[setting]{
	{"setting", "SETTING", func(s setting) any { return s.name }},
	{"value", "VALUE", func(s setting) any { return s.value }},
	{"from", "FROM", func(s setting) any { return s.origin }},
}

// settingsOf are the settings among flags.
func settingsOf(flags *pflag.FlagSet) (settings []setting) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Annotations[settingFlag] == nil {
			return
		}
		origin := "default"
		if f.Changed {
			origin = "--" + f.Name
		}
		if from := f.Annotations[originFlag]; from != nil {
			origin = from[0]
		}
		settings = append(settings, setting{f.Name, shown(f), origin})
	})
	return settings
}

// shown is a flag's value as it may be shown to anyone.
func shown(f *pflag.Flag) string {
	value := f.Value.String()
	switch {
	case value == "":
		return "-"
	case f.Name == "database":
		return hidden(value)
	case f.Annotations[secretFlag] != nil:
		return "********"
	}
	return value
}
