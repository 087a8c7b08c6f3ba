package client

import (
	"context"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// pageSize is how much of a list is asked for at once.
const pageSize = 1000

// list walks a list to its end.
func list[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		q := url.Values{"limit": {strconv.Itoa(pageSize)}}
		for name, values := range query {
			if values[0] != "" {
				q[name] = values
			}
		}
		for {
			var page Page[T]
			if _, err := c.do(ctx, call{method: http.MethodGet, path: path, query: q}, &page); err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, v := range page.List {
				if !yield(v, nil) {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			q.Set("cursor", page.NextCursor)
		}
	}
}

// path puts a path together of fixed parts and values.
func path(parts ...string) (p string) {
	for i, part := range parts {
		if i%2 == 1 {
			part = url.PathEscape(part)
		}
		p += part
	}
	return p
}

// Self says who calls.
func (c *Client) Self(ctx context.Context) (s Self, err error) {
	_, err = c.do(ctx, call{method: http.MethodGet, path: "/self"}, &s)
	return s, err
}

// Accounts lists the accounts by name.
func (c *Client) Accounts(ctx context.Context) iter.Seq2[Account, error] {
	return list[Account](ctx, c, "/accounts", nil)
}

// AddAccount adds an account.
func (c *Client) AddAccount(ctx context.Context, name string) (a Account, err error) {
	return a, c.post(ctx, "/accounts", NewAccount{name}, &a)
}

// Pools lists the pools of an account; "" of all.
func (c *Client) Pools(ctx context.Context, account string) iter.Seq2[Pool, error] {
	return list[Pool](ctx, c, "/pools", url.Values{"account": {account}})
}

// AddPurchase adds licenses to a pool, or withdraws them.
func (c *Client) AddPurchase(ctx context.Context, account, sku string, p NewPurchase) (pool Pool, err error) {
	return pool, c.post(ctx, path("/accounts/", account, "/pools/", sku, "/purchases"), p, &pool)
}

// ChangePool says when a pool counts as low.
func (c *Client) ChangePool(ctx context.Context, account, sku string, change PoolChange) (pool Pool, err error) {
	_, err = c.do(ctx, call{method: http.MethodPatch, path: path("/accounts/", account, "/pools/", sku), body: change}, &pool)
	return pool, err
}

// SIMFilter selects SIMs; what is empty selects all.
type SIMFilter struct{ Account, ICCID, IMEI, MDN, State string }

// SIMs lists SIMs, account by account as they were imported.
func (c *Client) SIMs(ctx context.Context, f SIMFilter) iter.Seq2[SIM, error] {
	return list[SIM](ctx, c, "/sims", url.Values{
		"account": {f.Account}, "iccid": {f.ICCID}, "imei": {f.IMEI}, "mdn": {f.MDN}, "state": {f.State},
	})
}

// ChangeSIMs changes the state of SIMs, or of none.
func (c *Client) ChangeSIMs(ctx context.Context, account string, change SIMsChange) (n Changed, err error) {
	return n, c.post(ctx, path("/accounts/", account, "/sims/state"), change, &n)
}

// ImportSIMs imports a CSV file, all of it or nothing; account is that of lines
// that name none.
func (c *Client) ImportSIMs(ctx context.Context, csv io.Reader, account string) (r Imported, err error) {
	query := url.Values{}
	if account != "" {
		query.Set("account", account)
	}
	_, err = c.do(ctx, call{method: http.MethodPost, path: "/sims/import", query: query, upload: csv, uploadType: "text/csv"}, &r)
	return r, err
}

// Request reads a request.
func (c *Client) Request(ctx context.Context, account, id string) (r RequestDetail, err error) {
	_, err = c.do(ctx, call{method: http.MethodGet, path: path("/accounts/", account, "/requests/", id)}, &r)
	return r, err
}

// RequestsByID finds the requests of an ID: one, unless two accounts have it.
func (c *Client) RequestsByID(ctx context.Context, account, id string) iter.Seq2[Request, error] {
	return list[Request](ctx, c, "/requests", url.Values{"account": {account}, "request": {id}})
}

// Task reads the task of one device of a request.
func (c *Client) Task(ctx context.Context, account, request, iccid string) (t TaskDetail, err error) {
	_, err = c.do(ctx, call{method: http.MethodGet, path: path("/accounts/", account, "/requests/", request, "/tasks/", iccid)}, &t)
	return t, err
}

// CallbackFilter selects callbacks; what is empty selects all.
type CallbackFilter struct {
	Account, Request string
	States           []string
	Since, Until     time.Time
}

// Callbacks lists callbacks account by account, the newest request first.
func (c *Client) Callbacks(ctx context.Context, f CallbackFilter) iter.Seq2[Task, error] {
	q := url.Values{"account": {f.Account}, "request": {f.Request}}
	if len(f.States) > 0 {
		q["state"] = f.States
	}
	for name, at := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !at.IsZero() {
			q.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	return list[Task](ctx, c, "/callbacks", q)
}

// SendCallbacks sends callbacks again: as many as the server does at once, and
// from the answer's cursor on the next time.
func (c *Client) SendCallbacks(ctx context.Context, account string, s SendCallbacks) (r SentCallbacks, err error) {
	return r, c.post(ctx, path("/accounts/", account, "/callbacks/send"), s, &r)
}

// StuckTasks lists the stuck tasks of an account; "" of all.
func (c *Client) StuckTasks(ctx context.Context, account string) iter.Seq2[StuckTask, error] {
	return list[StuckTask](ctx, c, "/stuck", url.Values{"account": {account}})
}

// Decide decides a stuck task.
func (c *Client) Decide(ctx context.Context, account, request, iccid string, d Decision) error {
	return c.post(ctx, path("/accounts/", account, "/requests/", request, "/tasks/", iccid, "/decide"), d, nil)
}

// Verify holds the facts of the ledger against each other.
func (c *Client) Verify(ctx context.Context) (v Verified, err error) {
	return v, c.post(ctx, "/verify", struct{}{}, &v)
}

// Applications lists the applications by key.
func (c *Client) Applications(ctx context.Context) iter.Seq2[Application, error] {
	return list[Application](ctx, c, "/applications", nil)
}

// AddApplication adds an application with the secret that it is given.
func (c *Client) AddApplication(ctx context.Context, a NewApplication) error {
	return c.post(ctx, "/applications", a, nil)
}

// RotateApplication gives an application another secret.
func (c *Client) RotateApplication(ctx context.Context, key string, r Rotation) (s ApplicationSecret, err error) {
	return s, c.post(ctx, path("/applications/", key, "/rotate"), r, &s)
}

// EndOldSecret ends an application's old secret before its overlap is over.
func (c *Client) EndOldSecret(ctx context.Context, key string) error {
	return c.post(ctx, path("/applications/", key, "/end-old-secret"), struct{}{}, nil)
}

// UnlockApplication forgets the failed tries of an application's key.
func (c *Client) UnlockApplication(ctx context.Context, key string) error {
	return c.post(ctx, path("/applications/", key, "/unlock"), struct{}{}, nil)
}

// Users lists the users by name.
func (c *Client) Users(ctx context.Context) iter.Seq2[User, error] {
	return list[User](ctx, c, "/users", nil)
}

// AddUser adds a user with the password that it is given.
func (c *Client) AddUser(ctx context.Context, u NewUser) error {
	return c.post(ctx, "/users", u, nil)
}

// RotateUser gives a user another password.
func (c *Client) RotateUser(ctx context.Context, name, password string) error {
	return c.post(ctx, path("/users/", name, "/rotate"), NewSecret{password}, nil)
}

// ChangeUser changes a user, whatever was changed meanwhile.
func (c *Client) ChangeUser(ctx context.Context, name string, change UserChange) error {
	_, err := c.do(ctx, call{method: http.MethodPatch, path: path("/users/", name), body: change}, nil)
	return err
}

// UnlockUser forgets a user's failed logins.
func (c *Client) UnlockUser(ctx context.Context, name string) error {
	return c.post(ctx, path("/users/", name, "/unlock"), struct{}{}, nil)
}

// Listeners lists the listeners of an account; "" of all.
func (c *Client) Listeners(ctx context.Context, account string) iter.Seq2[Listener, error] {
	return list[Listener](ctx, c, "/listeners", url.Values{"account": {account}})
}

// ChangeListener tunes a listener, whatever was changed meanwhile.
func (c *Client) ChangeListener(ctx context.Context, account, service string, change ListenerChange) error {
	_, err := c.do(ctx, call{method: http.MethodPatch, path: path("/accounts/", account, "/listeners/", service), body: change}, nil)
	return err
}
