//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

// amid is how many requests the check has accepted before it kills the primary,
// and after.
const amid = 200

// check kills the primary under load and sees that nothing that was answered is
// lost, and that the dead server comes back as a standby.
func (c *cluster) check(ctx context.Context) error {
	if err := c.toggleLoad(ctx); err != nil {
		return err
	}
	if err := c.until(ctx, "requests are accepted", func() bool { return c.clients.count() >= amid }); err != nil {
		return err
	}
	lost := c.primary(ctx)
	if lost < 0 {
		return errors.New("there is no primary to kill")
	}
	heir := 1 - lost
	if role := c.Postgres[heir].role(ctx); role != "synchronous standby" {
		return fmt.Errorf("%s is %q, and should be the synchronous standby", c.servers[heir].name, role)
	}
	begun := time.Now()
	if err := c.servers[lost].signal(syscall.SIGKILL); err != nil {
		return err
	}
	before := c.clients.count()
	c.say("check: killed %s (Patroni and PostgreSQL) with %d requests accepted", c.servers[lost].name, before)
	if err := c.until(ctx, "the standby is promoted", func() bool { return c.primary(ctx) == heir }); err != nil {
		return err
	}
	c.say("check: %s is the primary %s later", c.servers[heir].name, time.Since(begun).Round(100*time.Millisecond))
	if err := c.until(ctx, "requests are accepted again", func() bool { return c.clients.count() >= before+amid }); err != nil {
		return err
	}
	begun = time.Now()
	if err := c.servers[lost].start(c.spawner, c.gone); err != nil {
		return err
	}
	err := c.until(ctx, c.servers[lost].name+" is the synchronous standby", func() bool {
		return c.Postgres[lost].role(ctx) == "synchronous standby"
	})
	if err != nil {
		return err
	}
	c.say("check: %s, started again, is the synchronous standby after %s", c.servers[lost].name, time.Since(begun).Round(100*time.Millisecond))
	return c.toggleLoad(ctx)
}

// until waits for something that takes patience.
func (c *cluster) until(ctx context.Context, what string, ok func() bool) error {
	deadline := time.Now().Add(patience)
	for !ok() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s", patience, what)
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return nil
}

// toggleLoad starts the load, or stops it and sees what became of it.
func (c *cluster) toggleLoad(ctx context.Context) (err error) {
	if c.clients == nil {
		if c.clients, err = newClients(ctx, c); err != nil {
			return err
		}
	}
	if c.clients.stopping == nil {
		c.clients.start(ctx)
		c.say("load: %d clients assign %d licenses in each request", callers, size)
		return nil
	}
	c.clients.stop()
	return c.settle(ctx)
}

// settle sees whether all that was answered since the first load stands: each
// device was told of, each request is a success, the pool has moved by as many
// licenses, and the ledger verifies.
func (c *cluster) settle(ctx context.Context) error {
	l := c.clients
	l.mu.Lock()
	c.say("load: no write was accepted for %s at most; met meanwhile: %s", l.trouble.longest.Round(10*time.Millisecond), l.trouble.met())
	faults := slices.Clone(l.faults)
	l.mu.Unlock()
	if len(faults) > 0 {
		return fmt.Errorf("%d answers were wrong, the first: %s", len(faults), faults[0])
	}
	err := c.until(ctx, "a callback comes for each device", func() bool { missing, _ := l.missing(); return len(missing) == 0 })
	if err != nil {
		missing, _ := l.missing()
		return fmt.Errorf("%w: %d are MISSING, such as %s", err, len(missing), missing[0])
	}
	client, err := l.anyNode(ctx)
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(l.accepted)) {
		s, err := client.RequestStatus(ctx, account, id)
		if err != nil || s.Status != "Success" {
			return fmt.Errorf("request %s was accepted, and is LOST: its status is %q (%w)", id, s.Status, errors.Join(err))
		}
	}
	list, err := client.Subscriptions(ctx, account, sku)
	if err != nil {
		return err
	}
	if len(list.SubscriptionList) != 1 || int(list.SubscriptionList[0].LicenseAssigned) != size*len(l.accepted) {
		return fmt.Errorf("%d licenses were acknowledged; the pools are %+v", size*len(l.accepted), list.SubscriptionList)
	}
	_, again := l.missing()
	c.say("load: all %d requests that were acknowledged stand; their %d callbacks came, %d of them more than once",
		len(l.accepted), size*len(l.accepted), again)
	cmd := exec.CommandContext(ctx, c.o.binary, "verify", "--secrets-key-file", c.path("nodes", "simlatch.key"))
	cmd.Env = []string{"SIMLATCH_DATABASE_FILE=" + c.databaseFile()}
	said, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("simlatch verify: %w\n%s", err, said)
	}
	c.say("simlatch verify: %s", bytes.TrimSpace(said))
	return nil
}

// anyNode is a client of a node that answers.
func (l *clients) anyNode(ctx context.Context) (client *m2m.Client, err error) {
	for _, client = range l.nodes {
		if _, err = client.Subscriptions(ctx, account, sku); err == nil {
			return client, nil
		}
	}
	return nil, fmt.Errorf("no node answers: %w", err)
}
