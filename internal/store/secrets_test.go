package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

func keyed(t *testing.T, fills ...byte) *auth.Sealer {
	t.Helper()
	var keys [][]byte
	for _, fill := range fills {
		keys = append(keys, bytes.Repeat([]byte{fill}, 32))
	}
	s, err := auth.NewSealer(keys[0], keys[1:]...)
	must(t, err)
	return s
}

// keyedStore opens a database with keys.
func keyedStore(t *testing.T, db *storetest.Database, fills ...byte) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), db.URL, store.Options{Sealer: keyed(t, fills...)})
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestReseal changes the key of a database that two nodes use, with more
// secrets than a batch has, in each place that has any. No step ends in an
// error, and no node ever fails to open a secret.
func TestReseal(t *testing.T) {
	const services, old, next = 450, 7, 8
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			db := e.NewDatabase(t)
			newBench(t, db.Open(t), storetest.Fixture{}).listen()
			ctx, now := t.Context(), storetest.Start()
			a, b := keyedStore(t, db, old), keyedStore(t, db, old)
			must(t, a.CheckSealer(ctx))
			for i := range services {
				l := license.Listener{Account: storetest.Account, Service: fmt.Sprintf("service-%03d", i), URL: "https://example.test", Password: "a password"}
				must(t, a.PutListener(ctx, l, now))
				l.SigningSecret = "a signing secret"
				must(t, a.TuneListener(ctx, l))
			}
			k := store.OnceKey{Caller: "ada", Operation: "POST /accounts", Key: "1", Hash: "h"}
			claim, _, err := a.BeginOnce(ctx, k, now)
			must(t, err)
			must(t, a.EndOnce(ctx, k, claim, "the answer"))
			opens := func(nodes ...*store.Store) {
				t.Helper()
				for _, s := range nodes {
					list, err := s.Listeners(ctx, storetest.Account)
					must(t, err)
					for _, l := range list {
						if l.Service != license.CarrierService && (l.Password != "a password" || l.SigningSecret != "a signing secret") {
							t.Fatalf("a listener is %+v", l)
						}
					}
					if _, answer, err := s.BeginOnce(ctx, k, now); err != nil || answer != "the answer" {
						t.Fatalf("the answer is %q, %v", answer, err)
					}
				}
			}
			rename := func(s *store.Store, i int) {
				t.Helper()
				must(t, s.PutListener(ctx, license.Listener{Account: storetest.Account, Service: fmt.Sprintf("service-%03d", i), URL: "https://example.test/2", Password: "a password"}, now))
			}

			// Appended on one after the other, and then put first.
			for _, keys := range [][]byte{{old, next}, {next, old}} {
				for _, s := range []*store.Store{a, b} {
					must(t, s.ReplaceKeys(ctx, keyed(t, keys...)))
					rename(s, int(keys[0]))
					opens(a, b)
				}
			}
			if err := b.ReplaceKeys(ctx, keyed(t, next)); !errors.Is(err, store.ErrOtherKey) {
				t.Errorf("the old key removed too early: %v, want ErrOtherKey", err)
			}
			opens(b)

			// One node still seals with the old key, and does so meanwhile.
			must(t, b.ReplaceKeys(ctx, keyed(t, old, next)))
			busy := false
			tell := func(int, int) {
				if !busy {
					busy = true
					rename(b, 1)
				}
			}
			if _, err := a.Reseal(ctx, tell); !errors.Is(err, store.ErrKeyInUse) {
				t.Errorf("Reseal beside a node that seals with the old key: %v, want ErrKeyInUse", err)
			}
			must(t, b.ReplaceKeys(ctx, keyed(t, next, old)))
			rename(b, 2)
			opens(a, b)

			last := -1
			_, err = a.Reseal(ctx, func(_, left int) { last = left })
			must(t, err)
			found, err := a.Sealed(ctx)
			must(t, err)
			oldKey, newKey := keyed(t, old).Fingerprint(), keyed(t, next).Fingerprint()
			if want := 2*services + 2; last != 0 || found.Lost != 0 || found.ByKey[oldKey] != 0 || found.ByKey[newKey] != want {
				t.Errorf("after Reseal %d are said to be left, and the secrets are %+v, want all %d under %s", last, found, want, newKey)
			}
			for _, s := range []*store.Store{a, b} {
				must(t, s.ReplaceKeys(ctx, keyed(t, next)))
				opens(a, b)
			}
			if err := keyedStore(t, db, old).CheckSealer(ctx); !errors.Is(err, store.ErrOtherKey) {
				t.Errorf("the old key alone: %v, want ErrOtherKey", err)
			}
			wrong := keyedStore(t, db, 9)
			err = wrong.PutListener(ctx, license.Listener{Account: storetest.Account, Service: "service-000", URL: "https://example.test", Password: "x"}, now)
			if !errors.Is(err, store.ErrOtherKey) {
				t.Errorf("sealing with a key of another database: %v, want ErrOtherKey", err)
			}
			opens(a)
		})
	}
}
