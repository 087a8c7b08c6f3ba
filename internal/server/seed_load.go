package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// seed loads the seed that the configuration names.
func (s *core) seed(ctx context.Context, path string) error {
	warn, finish := firstFew(ctx, s.log)
	defer finish()
	seed, err := ReadSeed(path, warn)
	if err != nil {
		return err
	}
	left, finishLeft := firstFew(ctx, s.log)
	defer finishLeft()
	l := &seedLoad{
		seed: seed, store: s.store.As(s.self("seed")), log: s.log, doubt: warn, left: left, now: s.cfg.Clock.Now(), database: s.cfg.Database,
		differ: map[stateDifference][]license.ICCID{}, hash: auth.HashPassword,
	}
	if s.cfg.box != nil {
		l.hash = auth.HashKnownPassword
	}
	return l.load(ctx)
}

// firstFew makes a function that logs the first few warnings, and one that
// tells the number of the others: a whole inventory with wrong check digits
// would bury everything else.
func firstFew(ctx context.Context, log *slog.Logger) (warn func(string), finish func()) {
	const most = 10
	n := 0
	return func(warning string) {
			if n++; n <= most {
				log.WarnContext(ctx, "the seed has something doubtful", "what", warning)
			}
		}, func() {
			if n > most {
				log.WarnContext(ctx, "the seed has more that is doubtful, which is not shown", "warnings", n-most)
			}
		}
}

// seedLoad is a seed on its way into a database. What is there already is left
// alone; where it differs, the difference is logged with the command that would
// apply the seed.
type seedLoad struct {
	seed     *Seed
	store    *store.Store
	log      *slog.Logger
	doubt    func(string) // is told of what may be wrong
	hash     func(auth.Secret) string
	left     func(string) // is told of SIMs that differ in what no command changes
	now      time.Time
	database string

	accounts map[string]license.AccountName // by folded name, those of the seed and of the database
	existing map[license.AccountName]bool   // that had SIMs before
	differ   map[stateDifference][]license.ICCID
	files    []string // that SIMs were read from
	at       place    // of the SIM read last
}

// load checks everything before it writes anything; only a conflict between a
// SIM and another one can still be found afterwards, and then no SIM is added.
func (l *seedLoad) load(ctx context.Context) error {
	if err := l.resolveAccounts(ctx); err != nil {
		return err
	}
	n := 0
	for _, err := range l.sims() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		n++
	}
	l.doubt = func(string) {} // they were told of everything
	for _, a := range l.seed.accounts {
		if err := l.store.AddAccount(ctx, l.accounts[a.name.Folded()], l.now); err != nil && !errors.Is(err, license.ErrExists) {
			return err
		}
	}
	if n > 0 {
		if err := l.importSIMs(ctx); err != nil {
			return err
		}
	}
	for _, step := range []func(context.Context) error{l.addPools, l.addApplications, l.addUsers} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	l.reportStates(ctx)
	return nil
}

// resolveAccounts finds the recorded form of every account the seed names.
func (l *seedLoad) resolveAccounts(ctx context.Context) error {
	known, err := l.store.Accounts(ctx)
	if err != nil {
		return err
	}
	l.accounts = map[string]license.AccountName{}
	for _, a := range l.seed.accounts {
		l.accounts[a.name.Folded()] = a.name
	}
	for _, a := range known {
		l.accounts[a.Folded()] = a
	}
	for i, u := range l.seed.users {
		for j, a := range u.accounts {
			if l.seed.users[i].accounts[j], err = l.find(a); err != nil {
				return fmt.Errorf("%s:%d: %w", l.seed.path, u.line, err)
			}
		}
	}
	return nil
}

func (l *seedLoad) find(name license.AccountName) (license.AccountName, error) {
	if a, ok := l.accounts[name.Folded()]; ok {
		return a, nil
	}
	return "", fmt.Errorf("the account %s is neither in the seed nor in the database", name)
}

// addPools gives each account of the seed the pools it does not have.
func (l *seedLoad) addPools(ctx context.Context) error {
	for _, a := range l.seed.accounts {
		account := l.accounts[a.name.Folded()]
		pools, err := l.store.Pools(ctx, account)
		if err != nil {
			return err
		}
		for _, p := range a.pools {
			p.Account = account
			at := slices.IndexFunc(pools, func(have license.Pool) bool { return have.SKU == p.SKU })
			switch {
			case at < 0:
				err = l.addPool(ctx, p)
			case pools[at].Purchased != p.Units:
				l.differs(ctx, fmt.Sprintf("account %s has %d purchased licenses of %s, the seed %d", account, pools[at].Purchased, p.SKU, p.Units),
					fmt.Sprintf(`pool add --account %s --sku %s --units %d --reason "as in the seed"`, account, p.SKU, p.Units-pools[at].Purchased))
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *seedLoad) addPool(ctx context.Context, p license.Purchase) error {
	if p.Units == 0 {
		return nil
	}
	pool, err := l.store.AddPurchase(ctx, p, l.now)
	if err != nil || pool.Purchased == p.Units {
		return err
	}
	// Another node loaded the same seed at the same moment and was first.
	p.Units, p.Reason = -p.Units, "the seed was loaded twice at once"
	_, err = l.store.AddPurchase(ctx, p, l.now)
	return err
}

func (l *seedLoad) addApplications(ctx context.Context) error {
	for _, a := range l.seed.applications {
		err := l.store.AddApplication(ctx, a.key, auth.HashSecret(a.secret), l.now)
		if !errors.Is(err, license.ErrExists) {
			if err != nil {
				return err
			}
			continue
		}
		have, err := l.store.Application(ctx, a.key)
		if err != nil {
			return err
		}
		if have.SecretHash != auth.HashSecret(a.secret) {
			l.differs(ctx, fmt.Sprintf("the application %s has another secret", a.key),
				fmt.Sprintf("application rotate %s --secret-file FILE", a.key))
		}
	}
	return nil
}

func (l *seedLoad) addUsers(ctx context.Context) error {
	for _, u := range l.seed.users {
		have, err := l.store.User(ctx, u.name)
		if errors.Is(err, license.ErrNotFound) {
			user := auth.User{Name: u.name, PasswordHash: l.hash(u.password), Accounts: u.accounts}
			if err = l.store.AddUser(ctx, user, l.now); errors.Is(err, license.ErrExists) {
				err = nil // by another node that loads the same seed
			}
		} else if err == nil {
			l.compareUser(ctx, u, have)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *seedLoad) compareUser(ctx context.Context, u seedUser, have auth.User) {
	if !auth.CheckPassword(have.PasswordHash, u.password) {
		l.differs(ctx, fmt.Sprintf("the user %s has another password", u.name), "user password "+u.name)
	}
	want := slices.Clone(u.accounts)
	slices.Sort(want)
	want = slices.Compact(want)
	slices.Sort(have.Accounts)
	if slices.Equal(want, have.Accounts) {
		return
	}
	command := "user grant " + u.name
	for _, a := range want {
		command += " --account " + string(a)
	}
	if len(want) == 0 {
		command += " --none"
	}
	l.differs(ctx, fmt.Sprintf("the user %s may use other accounts", u.name), command)
}

// differs logs a difference between the seed and the database, and the command
// that would apply the seed.
func (l *seedLoad) differs(ctx context.Context, what, command string) {
	if _, ok := SQLitePath(l.database); ok && l.database != DefaultDatabase {
		// Named only here: the URL of another database may hold a password.
		command = "--database " + l.database + " " + command
	}
	l.log.WarnContext(ctx, "the seed differs from the database, which was left as it is",
		"difference", what, "apply", "simlatch "+command)
}
