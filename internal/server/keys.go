package server

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
)

// watchKeys reads the file of the sealing keys each second and takes its keys
// over when they are others. While the file is wrong, or lacks a key that the
// database needs, the former keys stand. It goes by the machine's clock, as the
// file does.
func (c *core) watchKeys(ctx context.Context) error {
	path, err := keyPath(c.cfg.Database, c.cfg.SecretsKeyFile)
	if err != nil {
		return err
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := c.readKeys(ctx, path)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			said = ""
		case err.Error() != said: // once, not each second
			said = err.Error()
			c.log.ErrorContext(ctx, "the sealing keys cannot be used; the former ones stand", "error", err)
		}
	}
}

func (c *core) readKeys(ctx context.Context, path string) error {
	next, err := auth.ReadSealer(path, false)
	if err != nil || slices.Equal(next.Fingerprints(), c.sealer.Fingerprints()) {
		return err
	}
	if err := c.store.ReplaceKeys(ctx, next); err != nil {
		return err
	}
	c.log.InfoContext(ctx, "read the sealing keys again", "seals", next.Fingerprint(), "keys", strings.Join(next.Fingerprints(), ", "))
	return nil
}
