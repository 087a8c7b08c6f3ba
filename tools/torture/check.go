package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// check holds the database against what the clients, the carrier and the listener
// know, once nothing runs any more.
func (w *world) check(ctx context.Context) error {
	for _, args := range [][]string{{"verify"}, {"verify", "--audit"}} {
		if _, err := w.run(args...); err != nil {
			w.wrong("%v", err)
		}
	}
	s, err := store.Open(ctx, w.database, store.Options{})
	if err != nil {
		return err
	}
	if left, err := s.Unsealed(ctx, 1); err != nil || len(left) > 0 {
		w.wrong("entries of the audit were not sealed: %v, %v", left, err)
	}
	w.mu.Lock()
	err = errors.Join(w.checkRequests(ctx, s), w.checkSIMs(ctx, s), w.checkPurchases(ctx, s))
	w.mu.Unlock()
	return errors.Join(err, s.Close())
}

// checkRequests: each request that was acknowledged is there, ended, and was told
// of; no other is, since each was repeated until it was acknowledged.
func (w *world) checkRequests(ctx context.Context, s *store.Store) error {
	found := map[string]bool{}
	err := w.eachRequest(ctx, s, func(r store.KeptRequest) {
		found[string(r.ID)] = true
		a, known := w.requests[string(r.ID)]
		switch {
		case !known:
			w.double("request %s of %d devices was acknowledged to nobody", r.ID, r.Total)
		case a.devices != r.Total || r.Done+r.Failed != r.Total || r.Ended != r.Total:
			w.lost("request %s of %d devices: %d done, %d failed, %d callbacks ended", r.ID, a.devices, r.Done, r.Failed, r.Ended)
		}
	})
	if err != nil {
		return err
	}
	for id, a := range w.requests {
		if !found[id] {
			w.lost("request %s, which was acknowledged, is not there", id)
		}
		told := 0
		for _, t := range w.sink.came[id] {
			if t.status != "" {
				told++
			}
		}
		if told != a.devices {
			w.lost("request %s: %d of %d devices were told of", id, told, a.devices)
		}
	}
	for id := range w.sink.came {
		if _, known := w.requests[id]; !known {
			w.wrong("a callback came of request %s, which was acknowledged to nobody", id)
		}
	}
	return nil
}

// eachRequest walks through the requests that there are.
func (w *world) eachRequest(ctx context.Context, s *store.Store, do func(store.KeptRequest)) error {
	for _, account := range accounts {
		for f := (store.RequestFilter{Account: license.AccountName(account), Limit: 1000}); ; {
			list, last, more, err := s.Requests(ctx, f)
			if err != nil {
				return err
			}
			for _, r := range list {
				do(r)
			}
			if !more {
				break
			}
			f.Before = last
		}
	}
	return nil
}

// checkSIMs: a SIM holds a license where its client was told so, and where the
// carrier made one; the pools say the same; what was imported is there, once.
func (w *world) checkSIMs(ctx context.Context, s *store.Store) error {
	there := map[license.ICCID]license.SIM{}
	assigned := map[[2]string]int64{}
	for _, account := range accounts {
		sims, err := s.Devices(ctx, license.DeviceFilter{Accounts: []license.AccountName{license.AccountName(account)}, Limit: 1_000_000})
		if err != nil {
			return err
		}
		for _, sim := range sims {
			there[sim.Device.ICCID] = sim
			if sim.SKU != "" {
				assigned[[2]string{account, string(sim.SKU)}]++
			}
		}
	}
	want := w.sims()
	for i := range w.sims() {
		w.checkSIM(there, fleet.ICCID(i), w.accountOf(i))
	}
	for from, im := range w.imported {
		want += im.n
		for i := range im.n {
			w.checkSIM(there, fleet.ICCID(from+i), im.account)
		}
	}
	if len(there) != want {
		w.double("there are %d SIMs, and %d were imported", len(there), want)
	}
	for _, account := range accounts {
		pools, err := s.Pools(ctx, license.AccountName(account))
		if err != nil {
			return err
		}
		for _, p := range pools {
			if n := assigned[[2]string{account, string(p.SKU)}]; p.Assigned != n || p.Reserved != 0 {
				w.wrong("pool %s %s has %d assigned and %d reserved, and %d SIMs hold one", account, p.SKU, p.Assigned, p.Reserved, n)
			}
		}
	}
	return nil
}

func (w *world) checkSIM(there map[license.ICCID]license.SIM, iccid, account string) {
	sim, ok := there[license.ICCID(iccid)]
	holds, real := sim.SKU != "", w.carrier.holds[iccid] != ""
	switch told := w.held[iccid]; {
	case !ok || string(sim.Account) != account:
		w.lost("SIM %s of account %s, which was imported, is not there", iccid, account)
	case told && !holds:
		w.lost("SIM %s holds no license, and its client was told that it does", iccid)
	case !told && holds:
		w.double("SIM %s holds a license, and its client was not told so", iccid)
	case holds && !real:
		w.lost("SIM %s holds a license that the carrier did not make", iccid)
	case !holds && real:
		w.double("SIM %s holds none, and the carrier made one", iccid)
	}
}

// checkPurchases: each purchase that was acknowledged is there once, and one that
// nobody could tell of at most once.
func (w *world) checkPurchases(ctx context.Context, s *store.Store) error {
	times := map[string]int{}
	for _, account := range accounts {
		for before := int64(0); ; {
			list, err := s.Purchases(ctx, license.AccountName(account), license.SKUFlexible, before, 1000)
			if err != nil {
				return err
			}
			for _, p := range list {
				if p.Reason == "torture" {
					times[account+" "+p.Reference]++
				}
				before = p.Number
			}
			if len(list) < 1000 {
				break
			}
		}
	}
	for reference, sure := range w.bought {
		if times[reference] == 0 && sure == acknowledged {
			w.lost("purchase %s, which was acknowledged, is not there", reference)
		}
	}
	for reference, n := range times {
		if _, asked := w.bought[reference]; n > 1 || !asked {
			w.double("purchase %s is there %d times, asked for: %t", reference, n, asked)
		}
	}
	return nil
}

// harm is what went wrong in a world, in words; "" when nothing did.
func (w *world) harm() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) == 0 {
		return ""
	}
	list := slices.Clone(w.faults)
	if n := w.row.Lost + w.row.Double + w.row.Wrong - len(list); n > 0 {
		list = append(list, fmt.Sprintf("and %d more", n))
	}
	return "  " + strings.Join(list, "\n  ")
}
