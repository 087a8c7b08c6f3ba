package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/simlatch/simlatch/internal/sandbox"
	"github.com/simlatch/simlatch/internal/store"
)

// SandboxInfo is how to use a sandbox.
type SandboxInfo = sandbox.Info

// SandboxConfig says how a sandbox runs. The zero value works: in memory, with
// its own seed, on DefaultListen.
type SandboxConfig struct {
	sandbox.Spec

	Listen          string // as in Config
	TLSCert, TLSKey string // as in Config; namespaces have plain HTTP
	// Database is "sqlite:PATH" for a sandbox that is still there after a restart;
	// empty is memory. Namespaces are in memory always.
	Database string
	// ListenerConns is how many callbacks a listener gets at once; 0: one, so that
	// their order is always the same.
	ListenerConns int

	CallbackInterval time.Duration // as in Config
	CallbackTimeout  time.Duration
	CallbackAttempts int
	MaxDevices       int
	RateLimit        float64
	CarrierDelay     time.Duration

	CarrierRefuseRate float64
	CarrierRefuses    func(iccid string) bool

	Logger *slog.Logger
	// Ready, when not nil, is called once when the sandbox serves.
	Ready func(sandbox.Info)

	bodyTimeout time.Duration // as in Config
}

// Sandbox is a sandbox with its namespaces, each a service of its own.
type Sandbox struct {
	cfg  SandboxConfig
	log  *slog.Logger
	root *world

	mu        sync.Mutex // guards what follows
	spaces    map[string]*world
	made      int
	running   context.Context //nolint:containedctx // of Run, in which namespaces live
	group     *errgroup.Group
	templates map[string]string // the files of seeded databases, by their seeds
	dir       string            // where they are; made when first needed
}

// namespacesMost bounds the namespaces of a sandbox at one time.
const namespacesMost = 1000

// NewSandbox opens a sandbox and listens.
func NewSandbox(ctx context.Context, cfg SandboxConfig) (*Sandbox, error) {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	cfg.Seed = cmp.Or(cfg.Seed, sandbox.DefaultSeed())
	cfg.Listen = cmp.Or(cfg.Listen, DefaultListen)
	s := &Sandbox{cfg: cfg, log: cfg.Logger, spaces: map[string]*world{}, templates: map[string]string{}}
	secure, err := (&Server{core: &core{cfg: Config{TLSCert: cfg.TLSCert, TLSKey: cfg.TLSKey}, log: cfg.Logger}}).tls()
	if err != nil {
		return nil, err
	}
	spec := cfg.Spec
	spec.Name = "main"
	if s.root, err = s.newWorld(ctx, spec, cfg.Listen, cfg.Database, secure); err != nil {
		return nil, err
	}
	s.root.box.Attach(s.root, s)
	return s, nil
}

// Box is the sandbox around the first service.
func (s *Sandbox) Box() *sandbox.Box { return s.root.box }

// Info tells how to use the first service.
func (s *Sandbox) Info(ctx context.Context) (sandbox.Info, error) { return s.root.Info(ctx) }

// Run serves until ctx ends. It may be called once.
func (s *Sandbox) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	s.mu.Lock()
	s.running, s.group = running, group
	s.mu.Unlock()
	group.Go(func() error { return s.root.run(running) })
	if s.cfg.Ready != nil {
		info, err := s.root.Info(ctx)
		if err != nil {
			return err
		}
		s.cfg.Ready(info)
	}
	s.log.InfoContext(ctx, "ready", "url", s.root.url, "version", ReadBuild().Version)
	err := group.Wait()
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// Create makes a namespace: a service of its own, on a loopback port of its own.
func (s *Sandbox) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Info, error) {
	root := s.root.box.Spec()
	spec.Seed = cmp.Or(spec.Seed, root.Seed)
	spec.TestToken = cmp.Or(spec.TestToken, root.TestToken)
	spec.RandomSeed = cmp.Or(spec.RandomSeed, root.RandomSeed)
	if spec.Lenient == nil {
		spec.Lenient = root.Lenient
	}
	if spec.Rate == nil {
		spec.Rate = root.Rate
	}
	s.mu.Lock()
	s.made++
	spec.Name = cmp.Or(spec.Name, "space-"+strconv.Itoa(s.made))
	_, taken := s.spaces[spec.Name]
	switch {
	case s.running == nil:
		s.mu.Unlock()
		return sandbox.Info{}, errors.New("the sandbox does not run yet")
	case taken || spec.Name == "main":
		s.mu.Unlock()
		return sandbox.Info{}, sandbox.Refused(fmt.Sprintf("there is a namespace %q already", spec.Name))
	case len(s.spaces) >= namespacesMost:
		s.mu.Unlock()
		return sandbox.Info{}, sandbox.Refused(fmt.Sprintf("there are %d namespaces already; drop those that are not needed any more", namespacesMost))
	}
	s.spaces[spec.Name] = nil // taken
	s.mu.Unlock()

	w, err := s.newWorld(ctx, spec, "127.0.0.1:0", "", nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.spaces, spec.Name)
		return sandbox.Info{}, err
	}
	w.box.Attach(w, nil)
	s.spaces[spec.Name] = w
	var running context.Context
	running, w.end = context.WithCancel(s.running)
	s.group.Go(func() error {
		if err := w.run(running); err != nil {
			s.log.Error("a namespace has ended", "name", spec.Name, "error", err) // the others go on
		}
		return nil
	})
	return w.Info(ctx)
}

// Drop ends a namespace and forgets it.
func (s *Sandbox) Drop(ctx context.Context, name string) error {
	s.mu.Lock()
	w := s.spaces[name]
	if w != nil { // nil: it is being made, or there is none
		delete(s.spaces, name)
	}
	s.mu.Unlock()
	if w == nil {
		return sandbox.ErrNoNamespace
	}
	w.end()
	select {
	case <-w.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// List lists the namespaces by name.
func (s *Sandbox) List(ctx context.Context) ([]sandbox.Info, error) {
	s.mu.Lock()
	var worlds []*world
	for _, w := range s.spaces {
		if w != nil {
			worlds = append(worlds, w)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(worlds, func(a, b *world) int { return cmp.Compare(a.box.Spec().Name, b.box.Spec().Name) })
	var list []sandbox.Info
	for _, w := range worlds {
		info, err := w.Info(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, info)
	}
	return list, nil
}

// template is a file with a database that has a seed already: it is copied in less
// time than the schema is made and a seed is read and stored.
func (s *Sandbox) template(ctx context.Context, seed string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if path := s.templates[seed]; path != "" {
		return path, nil
	}
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "simlatch-sandbox-")
		if err != nil {
			return "", fmt.Errorf("making a directory for templates: %w", err)
		}
		s.dir = dir
	}
	path := filepath.Join(s.dir, strconv.Itoa(len(s.templates))+".db")
	if err := s.plant(ctx, seed, path); err != nil {
		return "", err
	}
	s.templates[seed] = path
	return path, nil
}

// plant writes a database with a seed into a file.
func (s *Sandbox) plant(ctx context.Context, seed, path string) (err error) {
	box, err := sandbox.New(sandbox.Spec{})
	if err != nil {
		return err
	}
	c := newCore(s.config(store.InMemory, box).complete())
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.openStore(ctx); err != nil {
		return err
	}
	if err := c.plant(ctx, seed); err != nil {
		return err
	}
	return c.store.Snapshot(ctx, path)
}

// plant loads the text of a seed.
func (c *core) plant(ctx context.Context, seed string) error {
	return withFile("seed.yaml", func(path string) error {
		if err := os.WriteFile(path, []byte(seed), 0o600); err != nil {
			return err
		}
		return c.seed(ctx, path)
	})
}

// withFile lends a path in a directory of its own, which is gone afterwards.
func withFile(name string, use func(path string) error) error {
	dir, err := os.MkdirTemp("", "simlatch-sandbox-")
	if err != nil {
		return fmt.Errorf("making a temporary directory: %w", err)
	}
	return errors.Join(use(filepath.Join(dir, name)), os.RemoveAll(dir))
}

// config is the service's own configuration.
func (s *Sandbox) config(database string, box *sandbox.Box) Config {
	return Config{
		Database: database, Carrier: CarrierSimulated, CarrierDelay: s.cfg.CarrierDelay,
		CarrierRefuseRate: s.cfg.CarrierRefuseRate, CarrierRefuses: s.cfg.CarrierRefuses,
		Workers: 1, listenerConns: cmp.Or(s.cfg.ListenerConns, 1),
		CallbackAllow:    []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		CallbackInterval: s.cfg.CallbackInterval, CallbackTimeout: s.cfg.CallbackTimeout, CallbackAttempts: s.cfg.CallbackAttempts,
		MaxDevices: s.cfg.MaxDevices, RateLimit: s.cfg.RateLimit, bodyTimeout: s.cfg.bodyTimeout,
		Grace: time.Second, Node: box.Spec().Name, Logger: s.log,
		Clock: box.Clock(), Random: box.Random(), box: box,
	}
}

// newWorld opens a service in a sandbox, and listens.
func (s *Sandbox) newWorld(ctx context.Context, spec sandbox.Spec, listen, database string, secure *tls.Config) (_ *world, err error) {
	who, err := sandbox.FirstOf(spec.Seed)
	if err != nil {
		return nil, err
	}
	box, err := sandbox.New(spec)
	if err != nil {
		return nil, err
	}
	box.Stand(who.Application, who.User)
	w := &world{sandbox: s, box: box, database: database, ended: make(chan struct{})}
	if w.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", listen); err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.listener.Close())
		}
	}()
	w.url = "http://" + w.listener.Addr().String()
	if secure != nil {
		w.url = "https://" + w.listener.Addr().String()
	}
	if err := w.begin(ctx); err != nil {
		return nil, err
	}
	w.http = newHTTP(box.Handler(http.HandlerFunc(w.serve)), secure, s.log, -1)
	// Calls that hang by a fault, or wait for what is expected, may take long.
	w.http.WriteTimeout = 0
	return w, nil
}
