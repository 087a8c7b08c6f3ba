package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/m2m"
)

// buy buys a bearer token with a secret of demo-key.
func (r *running) buy(t *testing.T, secret string) (status int, token m2m.TokenAnswer) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL()+"/api/ts/v1/oauth2/token",
		strings.NewReader(url.Values{"grant_type": {"client_credentials"}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	q.SetBasicAuth("demo-key", secret)
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusOK {
		err = json.NewDecoder(answer.Body).Decode(&token)
	}
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, token
}

// TestOldSecretOnTheWire rotates an application's secret with an overlap: programs
// with either go on, until the overlap is over, or somebody ends it.
func TestOldSecretOnTheWire(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
		clock := &nodeClock{still: time.Now(), pace: 1}
		cfg.Clock = clock
		r := startServer(t, cfg)
		c := r.login(t)
		operator, err := client.New(client.Config{BaseURL: r.URL(), Token: r.operatorToken(t, auth.RoleAdmin)})
		if err != nil {
			t.Fatal(err)
		}
		works := func(status int, secret string) m2m.TokenAnswer {
			t.Helper()
			got, token := r.buy(t, secret)
			if got != status {
				t.Errorf("%s buys a token: %d, want %d", secret, got, status)
			}
			return token
		}
		rotated, err := operator.RotateApplication(t.Context(), "demo-key", client.Rotation{Overlap: "1h"})
		if err != nil || rotated.OldSecretUntil.IsZero() {
			t.Fatalf("rotate = %+v, %v", rotated, err)
		}
		old, fresh := works(http.StatusOK, "demo-secret"), works(http.StatusOK, rotated.Secret)
		if old.AccessToken != c.bearer || fresh.AccessToken == c.bearer {
			t.Error("the old secret has another token than before, or the new one has it")
		}
		for _, bearer := range []string{old.AccessToken, fresh.AccessToken} {
			c.bearer = bearer
			c.call(http.MethodGet, "/accounts/"+testAccount, nil, http.StatusOK, nil)
		}
		for _, overlap := range []string{"soon", "-1h", "721h"} {
			if _, err := operator.RotateApplication(t.Context(), "demo-key", client.Rotation{Overlap: overlap}); err == nil || !strings.Contains(err.Error(), "overlap") {
				t.Errorf("an overlap of %s: %v", overlap, err)
			}
		}
		if err := operator.EndOldSecret(t.Context(), "demo-key"); err != nil {
			t.Fatal(err)
		}
		works(http.StatusUnauthorized, "demo-secret")
		works(http.StatusOK, rotated.Secret)

		again, err := operator.RotateApplication(t.Context(), "demo-key", client.Rotation{Overlap: "1h"})
		if err != nil {
			t.Fatal(err)
		}
		works(http.StatusOK, rotated.Secret)
		clock.shift.Store(int64(time.Hour))
		works(http.StatusUnauthorized, rotated.Secret)
		works(http.StatusOK, again.Secret)
	})
}
