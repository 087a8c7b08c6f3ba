package server

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/m2m"
)

// TestSealingKeyIsRotated changes the sealing key under running nodes, each with a
// key file of its own; on SQLite the node is one. Callbacks come with the password
// and signed all the while.
func TestSealingKeyIsRotated(t *testing.T) {
	const oldKey, newKey, password = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=\n", "the listener's password"
	const signing = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
	onEachEngine(t, func(t *testing.T, cfg Config) {
		withFleet(t, &cfg, 40)
		var nodes []*running
		var files []string
		count := 2
		if _, one := SQLitePath(cfg.Database); one {
			count = 1
		}
		for range count {
			cfg.SecretsKeyFile = writeFile(t, t.TempDir(), "key", oldKey)
			files = append(files, cfg.SecretsKeyFile)
			nodes = append(nodes, startServer(t, cfg))
		}
		var mu sync.Mutex // guards what follows
		good, bad := 0, []string{}
		l := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			var m m2m.CallbackMessage
			mu.Lock()
			defer mu.Unlock()
			if err == nil && json.Unmarshal(body, &m) == nil && m.Password == password && m2m.CheckSignature(signing, r.Header, body) == nil {
				good++
			} else {
				bad = append(bad, string(body))
			}
		}))
		t.Cleanup(l.Close)
		c := nodes[0].login(t)
		register := func(node *running) {
			t.Helper()
			c.url = node.URL()
			c.call(http.MethodPost, "/callbacks/"+testAccount, m2m.ListenerRequest{
				Name: license.CarrierService, URL: l.URL, Username: "u", Password: password,
			}, http.StatusOK, nil)
		}
		register(nodes[0])
		if err := nodes[0].store.TuneListener(t.Context(), license.Listener{Account: testAccount, Service: license.CarrierService, SigningSecret: signing}); err != nil {
			t.Fatal(err)
		}
		sent := 0
		works := func() {
			t.Helper()
			for _, node := range nodes {
				c.url = node.URL()
				c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", fleet(sent, 1)...), http.StatusOK, nil)
				sent++
			}
			eventually(t, "callbacks came", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return good+len(bad) >= sent
			})
		}
		works()
		change := func(text string) {
			t.Helper()
			for i, node := range nodes {
				partial := files[i] + ".new"
				if err := os.WriteFile(partial, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(partial, files[i]); err != nil {
					t.Fatal(err)
				}
				want, err := OpenSealer(cfg.Database, files[i], false)
				if err != nil {
					t.Fatal(err)
				}
				eventually(t, "the keys were read again", func() bool {
					return strings.Join(node.sealer.Fingerprints(), " ") == strings.Join(want.Fingerprints(), " ")
				})
				works()
				register(node)
				works()
			}
		}
		change(oldKey + newKey)
		change(newKey + oldKey)
		sealer, err := OpenSealer(cfg.Database, files[0], false)
		if err != nil {
			t.Fatal(err)
		}
		command, err := store.Open(t.Context(), cfg.Database, store.Options{Sealer: sealer})
		if err != nil {
			t.Fatal(err)
		}
		_, err = command.Reseal(t.Context(), func(int, int) {})
		if closing := command.Close(); err != nil || closing != nil {
			t.Fatal(err, closing)
		}
		works()
		change(newKey)
		mu.Lock()
		defer mu.Unlock()
		if good != sent || len(bad) > 0 {
			t.Errorf("%d of %d callbacks came with password and signature, and without: %q", good, sent, bad)
		}
	})
}
