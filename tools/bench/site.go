package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/simlatch/simlatch/internal/load"
	"github.com/simlatch/simlatch/m2m"
)

// What every site is seeded with.
const (
	applicationKey = "bench"
	secret         = "bench-secret"
	user           = "bench"
	password       = "bench-password"
	sku            = "SIMSec-IoT"
	patience       = 3 * time.Minute // for work to end; much more than it takes
)

// accounts of a site. The fleet of account i has mark i+1.
var accounts = []string{"0000123456-00001", "0000123456-00002"}

// siteOptions say what a site is like.
type siteOptions struct {
	engine   string
	sims     []int         // of each account
	interval time.Duration // between the attempts of a callback; 0 is the default
	caFile   string        // who may certify listeners; empty is the system's
}

// site is a database and the server on it.
type site struct {
	b        *bench
	o        siteOptions
	name     string
	database string

	process  *process
	url      string
	client   *m2m.Client
	header   map[string]string // of a caller who has logged in
	address  string            // to serve on; empty is any free port
	answered time.Time         // when a restarted server first answered
	next     []int             // the number of the next SIM to take, by account
	held     []int             // licenses assigned, by account
}

// newSite makes a database, seeds it through the server, and starts the server
// once more, so that nothing of the seeding is in its memory.
func (b *bench) newSite(ctx context.Context, o siteOptions) (*site, error) {
	database, err := b.database(ctx, o.engine)
	if err != nil {
		return nil, err
	}
	s := &site{b: b, o: o, database: database, name: fmt.Sprintf("site%d", b.databases), next: make([]int, len(accounts)), held: make([]int, len(accounts))}
	seed, err := s.writeSeed()
	if err != nil {
		return nil, err
	}
	b.say("%s: seeding %d SIMs", b.group, sum(o.sims))
	if err := s.start(ctx, seed); err != nil {
		return nil, err
	}
	if err := s.process.stop(); err != nil {
		return nil, fmt.Errorf("after seeding: %w", err)
	}
	if o.engine == postgres { // as autovacuum would have by the time such a server is in use
		if err := execute(ctx, database, "VACUUM ANALYZE"); err != nil {
			return nil, err
		}
	}
	if err := s.start(ctx, ""); err != nil {
		return nil, err
	}
	return s, s.login(ctx)
}

func sum(list []int) (n int) {
	for _, v := range list {
		n += v
	}
	return n
}

func (s *site) writeSeed() (string, error) {
	f, err := os.Create(filepath.Join(s.b.dir, s.name+".csv"))
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "account,imei,iccid,mdn,state,generation") // w keeps its first error until Flush
	for a, n := range s.o.sims {
		fleet := load.Fleet{Mark: a + 1}
		for i := range n {
			fmt.Fprintf(w, "%s,%s,%s,%d%09d,active,4G\n", accounts[a], fleet.IMEI(i), fleet.ICCID(i), 5+a, i)
		}
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return "", fmt.Errorf("writing the fleet: %w", err)
	}
	text := fmt.Sprintf("applications: [{key: %s, secret: %s}]\nusers: [{username: %s, password: %s, accounts: [%q, %q]}]\naccounts:\n",
		applicationKey, secret, user, password, accounts[0], accounts[1])
	for _, a := range accounts {
		text += fmt.Sprintf("  - {name: %q, pools: {%s: 1000000000}}\n", a, sku)
	}
	text += fmt.Sprintf("deviceFiles: [%s.csv]\n", s.name)
	path := filepath.Join(s.b.dir, s.name+".yaml")
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// start starts the server and waits until it says that it is ready.
func (s *site) start(ctx context.Context, seed string) error {
	args := []string{
		"serve", "--carrier", "simulated", "--listen", cmp.Or(s.address, "127.0.0.1:0"), "--database", s.database,
		"--secrets-key-file", filepath.Join(s.b.dir, "key"), "--callback-allow", "127.0.0.0/8", "--log-level", "warn",
	}
	if s.o.interval > 0 {
		args = append(args, "--callback-interval", s.o.interval.String())
	}
	if seed != "" {
		args = append(args, "--seed", seed)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.b.o.binary, args...)
	if s.b.o.profile != "" {
		var err error
		if cmd, err = s.b.profiled(ctx, args[1:]); err != nil {
			return err
		}
	}
	if s.o.caFile != "" {
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+s.o.caFile)
	}
	p, err := s.b.startProcess(cmd)
	if err != nil {
		return fmt.Errorf("starting the server: %w", err)
	}
	s.process, s.url = p, p.url
	return nil
}

// login logs in for requests that are rendered by hand.
func (s *site) login(ctx context.Context) (err error) {
	s.client, err = m2m.New(m2m.Config{BaseURL: s.url, Key: applicationKey, Secret: secret, Username: user, Password: password})
	if err != nil {
		return err
	}
	token, err := s.client.Token(ctx)
	if err != nil {
		return err
	}
	body, err := json.Marshal(m2m.LoginRequest{Username: user, Password: password})
	if err != nil {
		return err
	}
	w, err := dial(ctx, s.url)
	if err != nil {
		return err
	}
	defer w.close()
	answer, err := w.do(post(s.url, m2m.APIPrefix+"/session/login", map[string]string{"Authorization": "Bearer " + token}, body))
	if err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	var session m2m.SessionAnswer
	if err := json.Unmarshal(answer, &session); err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	s.header = map[string]string{"Authorization": "Bearer " + token, m2m.SessionHeader: session.SessionToken}
	return nil
}

// listen registers a listener.
func (s *site) listen(ctx context.Context, account int, url string) error {
	_, err := s.client.RegisterListener(ctx, accounts[account], m2m.ListenerRequest{Name: m2m.CarrierService, URL: url})
	if err != nil {
		return fmt.Errorf("registering the listener: %w", err)
	}
	return nil
}

// work is requests rendered for a server, with the devices each names.
type work struct {
	requests [][]byte
	iccids   [][]string
}

// take renders requests for SIMs that no request has named before.
func (s *site) take(account, requests, size int) (work, error) {
	from := s.next[account]
	s.next[account] += requests * size
	if s.next[account] > s.o.sims[account] {
		return work{}, fmt.Errorf("a site of %d SIMs was asked for %d", s.o.sims[account], s.next[account])
	}
	s.held[account] += requests * size
	numbers := make([]int, requests*size)
	for i := range numbers {
		numbers[i] = from + i
	}
	return render(s.url, s.header, load.Fleet{Mark: account + 1}, accounts[account], numbers, size), nil
}

const assignPath = m2m.APIPrefix + "/devices/license/actions/assign"

// render renders assign requests of some size for SIMs of an account.
func render(address string, header map[string]string, fleet load.Fleet, account string, numbers []int, size int) (w work) {
	for len(numbers) > 0 {
		n := min(size, len(numbers))
		var body bytes.Buffer
		fmt.Fprintf(&body, `{"accountName":%q,"skuNumber":%q,"devices":[`, account, sku)
		iccids := make([]string, n)
		for i, number := range numbers[:n] {
			if i > 0 {
				body.WriteByte(',')
			}
			iccids[i] = fleet.ICCID(number)
			fmt.Fprintf(&body, `{"deviceIds":[{"id":"%s","kind":"imei"},{"id":"%s","kind":"iccid"}]}`, fleet.IMEI(number), iccids[i])
		}
		body.WriteString("]}")
		w.requests = append(w.requests, post(address, assignPath, header, body.Bytes()))
		w.iccids = append(w.iccids, iccids)
		numbers = numbers[n:]
	}
	return w
}

// assigned waits until the pools say that everything accepted is assigned.
func (s *site) assigned(ctx context.Context) error {
	ctx, cancel := within(ctx, patience)
	defer cancel()
	for a, want := range s.held {
		for {
			list, err := s.client.Subscriptions(ctx, accounts[a], sku)
			if err != nil {
				return fmt.Errorf("reading the pool: %w", err)
			}
			if len(list.SubscriptionList) != 1 {
				return fmt.Errorf("account %s has %d pools, want 1", accounts[a], len(list.SubscriptionList))
			}
			p := list.SubscriptionList[0]
			if int(p.LicenseAssigned) == want && p.LicenseAvailable == p.LicensePurchased-p.LicenseAssigned {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w: %d of %d licenses are assigned", context.Cause(ctx), p.LicenseAssigned, want)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// close looks whether everything that was accepted was done, stops the server
// and verifies the ledger.
func (s *site) close(ctx context.Context) error {
	err := s.assigned(ctx)
	if err = errors.Join(err, s.process.stop()); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, s.b.o.binary, "verify", "--database", s.database, "--secrets-key-file", filepath.Join(s.b.dir, "key"))
	said, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("verifying the ledger: %w\n%s", err, said)
	}
	s.b.say("%s: %s", s.b.group, bytes.TrimSpace(said))
	return s.b.dropDatabase(ctx, s.database)
}
