package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/simlatch/simlatch/internal/auth"
)

// profilesEnv names another file of profiles than the one in the user's
// configuration directory.
const profilesEnv = "SIMLATCH_PROFILES"

// firstProfile is the name of a profile that was given none.
const firstProfile = "default"

// clientProfile says which server to call, and as whom.
type clientProfile struct {
	name     string
	server   string // without a slash at its end
	acct     string // may be empty; see account
	key      string
	secret   auth.Secret
	user     string
	password auth.Secret
	tlsCA    string // a file, by its whole path; empty: the system's authorities
}

// profiles are those that are stored.
type profiles struct {
	path    string
	current string // the one to use where none is named
	list    []clientProfile
}

// profilesText is the file as it is written.
type (
	profilesText struct {
		Current  string                 `yaml:"current"`
		Profiles map[string]profileText `yaml:"profiles"`
	}
	profileText struct {
		Server   string `yaml:"server"`
		Account  string `yaml:"account,omitempty"`
		Key      string `yaml:"key"`
		Secret   string `yaml:"secret,omitempty"`
		User     string `yaml:"user"`
		Password string `yaml:"password,omitempty"`
		TLSCA    string `yaml:"tls-ca,omitempty"`
	}
)

// profilesPath is where the profiles are.
func profilesPath() (string, error) {
	if path := os.Getenv(profilesEnv); path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("finding the directory for profiles: %w; %s can name a file", err, profilesEnv)
	}
	return filepath.Join(dir, "simlatch", "profiles.yaml"), nil
}

// readProfiles reads the stored profiles. Where there are none, and where there
// is no place for them, the list is empty.
func readProfiles() (*profiles, error) {
	s := &profiles{current: firstProfile}
	path, err := profilesPath()
	if err != nil {
		return s, nil //nolint:nilerr // everything can be given by flags, and store fails
	}
	s.path = path
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the profiles: %w", err)
	}
	// Elsewhere these bits do not say who may read a file.
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("others may read the secrets in %s (mode %04o); take that away with: chmod 600 %s", path, mode, path)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the profiles: %w", err)
	}
	var text profilesText
	d := yaml.NewDecoder(bytes.NewReader(content))
	d.KnownFields(true)
	if err := d.Decode(&text); err != nil {
		return nil, fmt.Errorf("reading the profiles in %s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if text.Current != "" {
		s.current = text.Current
	}
	for name, p := range text.Profiles {
		s.list = append(s.list, clientProfile{
			name: name, server: trimURL(p.Server), acct: p.Account,
			key: p.Key, secret: auth.Secret(p.Secret), user: p.User, password: auth.Secret(p.Password), tlsCA: p.TLSCA,
		})
	}
	slices.SortFunc(s.list, func(a, b clientProfile) int { return strings.Compare(a.name, b.name) })
	return s, nil
}

func (s *profiles) find(name string) (clientProfile, bool) {
	for _, p := range s.list {
		if p.name == name {
			return p, true
		}
	}
	return clientProfile{}, false
}

// put adds a profile, in place of the one that has its name. The first becomes
// the current one.
func (s *profiles) put(p clientProfile) {
	s.remove(p.name)
	if _, found := s.find(s.current); !found {
		s.current = p.name
	}
	s.list = append(s.list, p)
}

// remove takes a profile away and reports whether it was there.
func (s *profiles) remove(name string) bool {
	n := len(s.list)
	s.list = slices.DeleteFunc(s.list, func(p clientProfile) bool { return p.name == name })
	return len(s.list) < n
}

// store writes the profiles in one step, for their owner's eyes only.
func (s *profiles) store() error {
	if s.path == "" {
		_, err := profilesPath()
		return err
	}
	text := profilesText{Current: s.current, Profiles: map[string]profileText{}}
	for _, p := range s.list {
		text.Profiles[p.name] = profileText{p.server, p.acct, p.key, string(p.secret), p.user, string(p.password), p.tlsCA}
	}
	content, err := yaml.Marshal(text)
	if err != nil {
		return fmt.Errorf("storing the profiles: %w", err)
	}
	dir := filepath.Dir(s.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("storing the profiles: %w", err)
	}
	f, err := os.CreateTemp(dir, ".profiles-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("storing the profiles: %w", err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		return fmt.Errorf("storing the profiles: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
