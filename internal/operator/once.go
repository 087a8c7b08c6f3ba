package operator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

// maxKey is the longest idempotency key.
const maxKey = 255

// once does the work of a call under its idempotency key: at most once in 24
// hours. The key is claimed before the work and the answer kept after it, apart
// from the change itself; so when the process ends in between, a repeat is told
// that what became of the call is not known, and never does it again.
func (c *call) once(ctx context.Context) (any, error) {
	key := c.r.Header.Get(client.KeyHeader)
	if len(key) > maxKey || key != printable(key) {
		return nil, problemf(errInvalid, "%s must have at most %d printable characters, and no space round them", client.KeyHeader, maxKey)
	}
	var account license.AccountName // in the recorded form, under which keys are purged
	if name := c.r.PathValue("account"); name != "" {
		var err error
		if account, err = c.api.findAccount(ctx, name); err != nil {
			return nil, err
		}
	}
	sum := sha256.Sum256(append([]byte(c.r.URL.RequestURI()+"\n"), c.body...))
	k := store.OnceKey{
		Account: account, Caller: c.operator.Name,
		Operation: c.route.method + " " + c.route.path, Key: key, Hash: hex.EncodeToString(sum[:]),
	}
	claim, kept, err := c.api.cfg.Store.BeginOnce(ctx, k, c.api.cfg.Clock.Now())
	if errors.Is(err, store.ErrPending) {
		p := problemf(errPending, "a call with this key was begun and has no answer yet: it is under way, or it ended without one "+
			"and may have been done; look before you repeat it under another key")
		p.after = time.Second
		return nil, p
	}
	if err != nil {
		return nil, err
	}
	if claim == "" {
		var a answer
		err := json.Unmarshal([]byte(kept), &a)
		a.replayed = true
		return a, err
	}
	crash.At(crash.OnceBegun)
	c.r = c.r.WithContext(ctx)
	out, err := c.route.work(c)
	crash.At(crash.OnceDone)
	return c.conclude(ctx, k, claim, out, err)
}

// conclude keeps the answer of a call that was done under its key, and frees the
// key of one that changed nothing. That of a call of which neither is known stays
// as it is.
func (c *call) conclude(ctx context.Context, k store.OnceKey, claim string, out any, err error) (any, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.api.cfg.Timeout)
	defer cancel()
	a := c.answer(out, err)
	var noted error
	switch {
	case err == nil:
		kept, marshalErr := json.Marshal(a)
		noted = errors.Join(marshalErr, c.api.cfg.Store.EndOnce(ctx, k, claim, string(kept)))
		crash.At(crash.OnceEnded)
	case a.Status < http.StatusInternalServerError:
		noted = c.api.cfg.Store.ForgetOnce(ctx, k, claim)
	}
	if noted != nil {
		c.api.cfg.Logger.ErrorContext(ctx, "keeping what a call was answered", "request_id", c.id, "error", noted)
	}
	return a, err
}
