package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/load"
	"github.com/simlatch/simlatch/internal/store/storetest/pgcluster"
	"github.com/simlatch/simlatch/m2m"
)

// siteSKU is what the tenants of a site have licenses of.
const siteSKU = "SIMSec-IoT"

// workPatience is how long the callbacks of a site may take; much more than they do.
const workPatience = 2 * time.Minute

// siteOptions say what a site is like.
type siteOptions struct {
	database string
	sims     []int    // of each tenant
	apart    bool     // each tenant has an application and a user of its own
	args     []string // of the server
}

// A site is a server that lives, and tenants of whose work the time is taken.
type site struct {
	o       siteOptions
	binary  string
	dir     string
	log     *os.File
	process *process
	tenants []*tenant
}

// A tenant is an account, its credentials, its SIMs and its listener.
type tenant struct {
	account string
	client  *m2m.Client
	fleet   load.Fleet
	sink    load.Sink
}

// A lot is some SIMs that are assigned licenses and unassigned together, in turn.
type lot struct {
	devices []m2m.Device
	iccids  []string
	held    bool
	batch   *load.Batch // of the last request that was accepted; nil before
}

// onEngines runs a step on the engines asked for, each with a site of its own.
func onEngines(ctx context.Context, o *options, step func(context.Context, string, siteOptions) ([]row, error)) (rows []row, err error) {
	if o.engine == "" || o.engine == "postgres" {
		if cluster, ok := pgcluster.Asked(o.postgres); ok {
			c, err := pgcluster.Start(ctx, cluster)
			if err != nil {
				return nil, err
			}
			rows, err = step(ctx, "postgres", siteOptions{database: c.URL()})
			if err = errors.Join(err, c.Stop()); err != nil {
				return rows, fmt.Errorf("postgres: %w", err)
			}
		}
	}
	if o.engine == "" || o.engine == "sqlite" {
		more, err := step(ctx, "sqlite", siteOptions{database: "sqlite:simlatch.db"})
		if rows = append(rows, more...); err != nil {
			return rows, fmt.Errorf("sqlite: %w", err)
		}
	}
	return rows, nil
}

// newSite seeds a database and starts a server on it. Close ends it.
func newSite(ctx context.Context, binary string, o siteOptions) (s *site, err error) {
	s = &site{o: o, binary: binary}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "torture"); err != nil {
		return s, err
	}
	if s.log, err = os.Create(filepath.Join(s.dir, "server.log")); err != nil {
		return s, err
	}
	for i := range o.sims {
		s.tenants = append(s.tenants, &tenant{account: fmt.Sprintf("%010d-00001", 100+i), fleet: load.Fleet{Mark: i}})
	}
	if err := s.writeSeed(); err != nil {
		return s, err
	}
	args := []string{
		"serve", "--carrier", "simulated", "--listen", "127.0.0.1:0", "--database", o.database,
		"--secrets-key-file", "key", "--seed", "seed.yaml", "--callback-allow", "127.0.0.0/8", "--log-level", "warn",
	}
	cmd := exec.Command(binary, append(args, o.args...)...) //nolint:noctx // it is ended by hand
	cmd.Dir, cmd.Stderr, cmd.Env = s.dir, s.log, plainEnvironment()
	if s.process, err = startProcess(cmd); err != nil {
		return s, err
	}
	if s.o.database != "sqlite:simlatch.db" { // as autovacuum would have by the time such a server is in use
		if err := execute(ctx, s.o.database, "VACUUM ANALYZE"); err != nil {
			return s, err
		}
	}
	for i := range s.tenants {
		if err := s.connect(i, nil); err != nil {
			return s, err
		}
	}
	return s, nil
}

// connect gives a tenant a client that repeats nothing.
func (s *site) connect(tenant int, via *http.Client) (err error) {
	key := s.keyOf(tenant)
	s.tenants[tenant].client, err = m2m.New(m2m.Config{
		BaseURL: s.process.url, Key: "k" + key, Secret: "a-secret-of-some-length", Username: "u" + key, Password: "p", Retries: -1, HTTPClient: via,
	})
	return err
}

// keyOf tells the credentials of a tenant from others'.
func (s *site) keyOf(tenant int) string {
	if s.o.apart {
		return fmt.Sprint(tenant)
	}
	return "0"
}

func (s *site) writeSeed() error {
	csv, err := os.Create(filepath.Join(s.dir, "fleet.csv"))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(csv)
	fmt.Fprintln(w, "account,imei,iccid") // w keeps its first error until Flush
	users := map[string][]string{}
	accounts := ""
	for i, t := range s.tenants {
		for k := range s.o.sims[i] {
			fmt.Fprintf(w, "%s,%s,%s\n", t.account, t.fleet.IMEI(k), t.fleet.ICCID(k))
		}
		users[s.keyOf(i)] = append(users[s.keyOf(i)], t.account)
		accounts += fmt.Sprintf("  - {name: %q, pools: {%s: 1000000}}\n", t.account, siteSKU)
	}
	if err := errors.Join(w.Flush(), csv.Close()); err != nil {
		return err
	}
	seed := "applications:\n"
	for key := range users {
		seed += fmt.Sprintf("  - {key: k%s, secret: a-secret-of-some-length}\n", key)
	}
	seed += "users:\n"
	for key, of := range users {
		seed += fmt.Sprintf("  - {username: u%s, password: p, accounts: [", key)
		for _, account := range of {
			seed += fmt.Sprintf("%q, ", account)
		}
		seed += "]}\n"
	}
	seed += "accounts:\n" + accounts + "deviceFiles: [fleet.csv]\n"
	return errors.Join(os.WriteFile(filepath.Join(s.dir, "seed.yaml"), []byte(seed), 0o600),
		os.WriteFile(filepath.Join(s.dir, "key"), []byte("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n"), 0o600))
}

// listen registers a handler as the listener of a tenant and returns what closes it.
func (s *site) listen(ctx context.Context, t *tenant, h http.Handler) (func(), error) {
	srv := httptest.NewServer(h)
	if err := t.register(ctx, srv.URL); err != nil {
		srv.Close()
		return nil, err
	}
	return func() {
		srv.CloseClientConnections()
		srv.Close()
	}, nil
}

func (t *tenant) register(ctx context.Context, url string) error {
	if _, err := t.client.RegisterListener(ctx, t.account, m2m.ListenerRequest{Name: m2m.CarrierService, URL: url}); err != nil {
		return fmt.Errorf("registering the listener of %s: %w", t.account, err)
	}
	return nil
}

// lots are the tenant's first SIMs, in lots of a size.
func (t *tenant) lots(n, size int) []*lot {
	list := make([]*lot, n)
	for i := range list {
		list[i] = &lot{}
		for k := range size {
			list[i].devices = append(list[i].devices, t.fleet.Device(i*size+k))
			list[i].iccids = append(list[i].iccids, t.fleet.ICCID(i*size+k))
		}
	}
	return list
}

// send asks for the next request about a lot, and returns how long its answer took.
// A request that was refused has changed nothing.
func (t *tenant) send(ctx context.Context, l *lot) (time.Duration, error) {
	call := t.client.Assign
	if l.held {
		call = t.client.Unassign
	}
	batch := t.sink.Expect(l.iccids)
	begun := time.Now()
	id, err := call(ctx, m2m.LicenseRequest{AccountName: t.account, SKUNumber: siteSKU, Devices: l.devices})
	took := time.Since(begun)
	if err != nil {
		batch.Refused()
		return took, err
	}
	batch.Answered(id)
	l.batch, l.held = batch, !l.held
	return took, nil
}

// wait waits until all callbacks of a lot's last request have come.
func (l *lot) wait(ctx context.Context) error {
	if l.batch == nil {
		return nil
	}
	late := time.NewTimer(workPatience)
	defer late.Stop()
	select {
	case <-l.batch.Done():
		if n := len(l.batch.Failed()); n > 0 {
			return fmt.Errorf("%d devices of a request failed", n)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return fmt.Errorf("not all callbacks of a request of %d devices came within %s", len(l.iccids), workPatience)
	}
}

// verify ends the server as an operator would and verifies the ledger.
func (s *site) verify() error {
	p := s.process
	s.process = nil
	if err := p.terminate(time.Minute); err != nil {
		return err
	}
	cmd := exec.Command(s.binary, "verify", "--database", s.o.database, "--secrets-key-file", "key") //nolint:noctx // it ends
	cmd.Dir, cmd.Env = s.dir, plainEnvironment()
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("simlatch verify: %w\n%s", err, said)
	}
	return nil
}

// close ends what is left of the site. Where something failed the log is shown.
func (s *site) close() (err error) {
	if s.process != nil {
		s.process.kill()
	}
	if s.log != nil {
		err = s.log.Close()
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// median of a list that is not empty.
func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// missed says that a figure is above what it should be at most.
func missed(have, most float64) string {
	if have <= most {
		return ""
	}
	return fmt.Sprintf(" (missed: at most %g)", most)
}
