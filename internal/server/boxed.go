package server

import (
	"context"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/api"
	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/callback"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/provision"
	"github.com/simlatch/simlatch/internal/sandbox"
)

// What a sandbox sets otherwise. Outside of one, these change nothing.

// boxLease is how long work is leased in a sandbox, on its clock: much longer
// than elsewhere, since its clock may run a thousand times as fast as listeners
// answer, and since nobody else could take the work over.
const boxLease = 12 * time.Hour

// sealer is what seals stored secrets. A sandbox keeps none, so that a snapshot
// can be restored anywhere.
func (c Config) sealer() (*auth.Sealer, error) {
	if c.box != nil {
		key := sha256.Sum256([]byte("the secrets of a sandbox are known to all"))
		return auth.NewSealer(key[:])
	}
	return OpenSealer(c.Database, c.SecretsKeyFile, true)
}

func (c Config) boxedSender(s callback.Config) callback.Config {
	if c.box != nil {
		s.Courier, s.Wall, s.Lease = c.box, license.SystemClock{}, boxLease
		s.PerListener = c.listenerConns
	}
	return s
}

func (c Config) boxedWorker(w provision.Config) provision.Config {
	if c.box != nil {
		w.Carrier = c.box.Carrier(w.Carrier)
		w.Lease, w.Backoff = boxLease, steadyBackoff
	}
	return w
}

// steadyBackoff is license.Backoff without its chance, so that a history can
// repeat itself.
func steadyBackoff(attempt int) time.Duration {
	return min(5*time.Minute, time.Second<<min(attempt, 9))
}

func (c Config) boxedAPI(a api.Config) api.Config {
	if c.box == nil {
		return a
	}
	a.Lease = boxLease
	check := a.CheckURLHost
	a.CheckURLHost = func(ctx context.Context, host string, port uint16) error {
		if strings.EqualFold(host, sandbox.InboxHost) {
			return nil
		}
		return check(ctx, host, port)
	}
	return a
}
