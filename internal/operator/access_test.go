package operator_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestAccess adds accounts, applications and users, and takes rights away.
func TestAccess(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		var a client.Account
		h.post("/accounts", client.NewAccount{Name: "0000000001-00001"}, client.KeyHeader, "a").want(http.StatusCreated, &a)
		h.post("/accounts", client.NewAccount{Name: "0000000001-00001"}, client.KeyHeader, "a").want(http.StatusCreated, &a)
		h.post("/accounts", client.NewAccount{Name: "000000000100001"}).want(http.StatusConflict).problem("exists")
		h.post("/accounts", client.NewAccount{Name: "?"}).want(http.StatusBadRequest).problem("invalid")
		h.get("/accounts/000000000100001").want(http.StatusOK, &a)
		if a.Name != "0000000001-00001" || !a.Created.Equal(storetest.Start()) {
			t.Errorf("the account: %+v", a)
		}

		var app client.ApplicationSecret
		h.post("/applications", client.NewApplication{Key: "billing/1"}).want(http.StatusCreated, &app)
		stored, err := h.s.Application(t.Context(), "billing/1")
		if err != nil || stored.SecretHash != auth.HashSecret(auth.Secret(app.Secret)) {
			t.Errorf("the application: %+v, %v", stored, err)
		}
		h.post("/applications", client.NewApplication{Key: "a:b"}).want(http.StatusBadRequest).problem("invalid")
		h.post("/applications", client.NewApplication{Secret: "short"}).want(http.StatusBadRequest).problem("invalid")
		rotated := client.ApplicationSecret{}
		h.post("/applications/billing%2F1/rotate", client.NewSecret{Secret: "a secret of the caller's own"}).want(http.StatusOK, &rotated)
		if rotated.Secret != "" {
			t.Errorf("a secret that the caller knows is shown: %+v", rotated)
		}
		yes := true
		r := h.get("/applications/billing%2F1").want(http.StatusOK)
		h.call(auth.RoleAdmin, "PATCH", "/applications/billing%2F1", client.ApplicationChange{Disabled: &yes}, "If-Match", r.header.Get("ETag")).want(http.StatusOK)
		h.call(auth.RoleAdmin, "PATCH", "/applications/billing%2F1", client.ApplicationChange{}, "If-Match", r.header.Get("ETag")).want(http.StatusPreconditionFailed)
		if stored, _ := h.s.Application(t.Context(), "billing/1"); !stored.Disabled {
			t.Error("the application is not disabled")
		}
		h.post("/applications/none/unlock", nil).want(http.StatusNotFound)

		var user client.UserPassword
		h.post("/users", client.NewUser{Name: "ada", Accounts: []string{"000000000100001"}}).want(http.StatusCreated, &user)
		if u, _ := h.s.User(t.Context(), "ada"); !auth.CheckPassword(u.PasswordHash, auth.Secret(user.Password)) {
			t.Error("the password is another")
		}
		h.post("/users", client.NewUser{Name: "bob", Accounts: []string{"nobody"}}).want(http.StatusNotFound).problem("not-found")
		h.post("/users", client.NewUser{Name: "a b"}).want(http.StatusBadRequest).problem("invalid")
		var u client.User
		both := []string{string(storetest.Account), "0000000001-00001"}
		h.call(auth.RoleAdmin, "PATCH", "/users/ada", client.UserChange{Accounts: &both}).want(http.StatusOK, &u)
		if fmt.Sprint(u.Accounts) != "[0000000001-00001 0000123456-00001]" || u.Disabled {
			t.Errorf("the user: %+v", u)
		}
		h.post("/users/ada/rotate", client.NewSecret{}).want(http.StatusOK, &user)
		h.post("/users/none/rotate", client.NewSecret{}).want(http.StatusNotFound)
		h.post("/users/ada/unlock", nil).want(http.StatusOK)
	})
}

// TestOperators creates an operator, who then calls, and is shut out.
func TestOperators(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		var o client.OperatorToken
		h.post("/operators", client.NewOperator{Name: "olga", Role: "operator"}).want(http.StatusCreated, &o)
		h.post("/operators", client.NewOperator{Name: "olga", Role: "viewer"}).want(http.StatusConflict).problem("exists")
		h.post("/operators", client.NewOperator{Name: "oscar", Role: "king"}).want(http.StatusBadRequest).problem("invalid")
		h.tokens["olga"] = o.Token
		var self client.Self
		h.call("olga", "GET", "/self", nil).want(http.StatusOK, &self)
		if self != (client.Self{Name: "olga", Role: "operator"}) {
			t.Errorf("self: %+v", self)
		}
		yes, admin := true, "admin"
		h.call(auth.RoleAdmin, "PATCH", "/operators/the-admin", client.OperatorChange{Role: &admin}).want(http.StatusConflict).problem("self")
		var record client.Operator
		h.call(auth.RoleAdmin, "PATCH", "/operators/olga", client.OperatorChange{Disabled: &yes, Role: &admin}).want(http.StatusOK, &record)
		if !record.Disabled || record.Role != "admin" || !record.Token || record.Password {
			t.Errorf("the operator: %+v", record)
		}
		h.clock.pass(2 * time.Second)
		h.call("olga", "GET", "/self", nil).want(http.StatusUnauthorized).problem("token")
		h.call("", "GET", "/self", nil, "Authorization", "Basic x").want(http.StatusUnauthorized).problem("token")
	})
}

// TestKeys does what was begun under a key at most once.
func TestKeys(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		key := func(k string) []string { return []string{client.KeyHeader, k} }
		var first, again client.ApplicationSecret
		h.post("/applications", client.NewApplication{}, key("1")...).want(http.StatusCreated, &first)
		h.post("/applications", client.NewApplication{}, key("1")...).want(http.StatusCreated, &again)
		if first != again || first.Secret == "" {
			t.Errorf("under one key: %+v and %+v", first, again)
		}
		// Another operator's key is another key.
		h.call(auth.RoleAdmin, "POST", "/users", client.NewUser{Name: "?"}, key("2")...).want(http.StatusCreated)
		// A refusal changed nothing and frees the key.
		h.post("/accounts", client.NewAccount{Name: "?"}, key("3")...).want(http.StatusBadRequest)
		h.post("/accounts", client.NewAccount{Name: "good-1"}, key("3")...).want(http.StatusCreated)
		h.post("/accounts", client.NewAccount{Name: "x-1"}, key(strings.Repeat("k", 256))...).want(http.StatusBadRequest).problem("invalid")
		// A server that died between the claim and the answer left this behind.
		body := `{"name":"lost-1"}`
		sum := sha256.Sum256([]byte("/operator/v1/accounts\n" + body))
		_, _, err := h.s.BeginOnce(t.Context(), store.OnceKey{
			Caller: "the-admin", Operation: "POST /accounts", Key: "4", Hash: hex.EncodeToString(sum[:]),
		}, h.clock.Now())
		h.must(err)
		if r := h.post("/accounts", body, key("4")...).want(http.StatusConflict).problem("pending"); r.header.Get("Retry-After") != "1" {
			t.Errorf("pending: %v", r.header)
		}
		h.get("/accounts/lost-1").want(http.StatusNotFound)
		h.clock.pass(24 * time.Hour)
		h.post("/applications", client.NewApplication{}, key("1")...).want(http.StatusCreated, &again)
		if first == again {
			t.Error("a key stands for its answer for more than a day")
		}
	})
}

// TestPages walks lists that go account by account, in pages of each size.
func TestPages(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		const accounts = 3
		for i := range accounts {
			name := license.AccountName(fmt.Sprintf("0000000%d-1", i))
			storetest.Seed(t, h.s, storetest.Fixture{Account: name, SIMs: 2, First: 1000 * (i + 1), Pools: map[license.SKU]int64{license.SKUFlexible: 1, license.SKULifetime: 1}})
		}
		for path, want := range map[string]int{"/accounts": accounts + 1, "/pools": 2*accounts + 4, "/sims": 2*accounts + 10, "/operators": 3} {
			for _, size := range []int{1, 2, 3, 1000} {
				seen := map[string]bool{}
				for cursor, n := "", 0; ; n++ {
					var page client.Page[map[string]any]
					h.call(auth.RoleAdmin, "GET", fmt.Sprintf("%s?limit=%d&cursor=%s", path, size, cursor), nil).want(http.StatusOK, &page)
					for _, v := range page.List {
						seen[fmt.Sprint(v["name"], v["account"], v["sku"], v["iccid"])] = true
					}
					if cursor = page.NextCursor; cursor == "" {
						break
					}
					if n > 100 {
						t.Fatalf("%s by %d does not end", path, size)
					}
				}
				if len(seen) != want {
					t.Errorf("%s by %d: %d entries, want %d", path, size, len(seen), want)
				}
			}
		}
		for _, wrong := range []string{"limit=0", "limit=1001", "limit=x", "cursor=!", "cursor=e30x", "limit=1&limit=2", "what=1"} {
			h.get("/accounts?" + wrong).want(http.StatusBadRequest).problem("invalid")
		}
	})
}
