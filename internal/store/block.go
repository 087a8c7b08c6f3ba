package store

import (
	"context"
	"errors"
	"slices"

	"github.com/simlatch/simlatch/internal/license"
)

// leastBlock is how many SIMs are worth a look for a block. Tests have fewer.
var leastBlock = combineMost + 1

// blockBatch is the most SIMs that are read at once to find a block.
const blockBatch = 4000

// A block is the SIMs of a large request where they lie next to each other in the
// inventory, as the SIMs of one delivery do: they can be taken as a range. It is
// read out of the writer's time, and no statement has to return what is known.
type block struct {
	devices []license.Device
	newest  int64  // the greatest of their numbers: a SIM that comes between them later has a greater one
	held    []held // what they hold, one after the other
}

// held is what some SIMs of a block hold, up to an index, and the request that last
// touched them.
type held struct {
	to      int
	sku     license.SKU
	request license.RequestID
}

// errNotBlock says that a block was not as it had been read.
var errNotBlock = errors.New("the SIMs are not as they were read")

const selectBlock = `SELECT iccid, imei, mdn, number, sku, request FROM sim
	WHERE account = $1 AND iccid BETWEEN $2 AND $3 ORDER BY iccid LIMIT $4`

// blockOf is the block of a request that can be taken as one; nil of any other.
func (s *Store) blockOf(ctx context.Context, r *license.Request) (*block, error) {
	if len(r.Devices) < leastBlock {
		return nil, nil
	}
	b, err := s.block(ctx, r.Account, r.Devices)
	if err != nil || b == nil || r.Action == license.Assign {
		return b, err
	}
	if ok, err := s.settled(ctx, r.Account, b, r.SKU); err != nil || !ok {
		return nil, err
	}
	return b, nil
}

// block finds the SIMs of a request if they are a block; nil where they are not.
// It reads a few, and then ever more at a time, so that finding out costs little.
func (s *Store) block(ctx context.Context, account license.AccountName, wanted []license.Device) (*block, error) {
	b := &block{devices: make([]license.Device, 0, len(wanted))}
	for size := leastRun; len(b.devices) < len(wanted); size = min(8*size, blockBatch) {
		// From the last of those before, so that nothing can lie between.
		from := max(0, len(b.devices)-1)
		part := wanted[from:min(from+size, len(wanted))]
		first, last := part[0].ICCID, part[len(part)-1].ICCID
		type row struct {
			license.Device
			held

			number int64
		}
		got, err := collect(s.reader(ctx), func(scan func(...any) error) (r row, err error) {
			return r, scan(&r.ICCID, &r.IMEI, &r.MDN, &r.number, &r.sku, &r.request)
		}, selectBlock, string(account), string(first), string(last), len(part)+1)
		if err != nil || len(got) != len(part) {
			return nil, err
		}
		for i, r := range got {
			if r.ICCID != part[i].ICCID || part[i].IMEI != "" && r.IMEI != part[i].IMEI {
				return nil, nil
			}
			b.newest = max(b.newest, r.number)
			if from+i == len(b.devices) {
				b.devices = append(b.devices, r.Device)
				b.hold(r.held)
			}
		}
	}
	return b, nil
}

// hold adds what the block's last SIM holds.
func (b *block) hold(h held) {
	h.to = len(b.devices)
	if n := len(b.held); n > 0 && b.held[n-1].sku == h.sku && b.held[n-1].request == h.request {
		b.held = b.held[:n-1]
	}
	b.held = append(b.held, h)
}

const countComplete = `SELECT count(*) FROM request WHERE account = $1 AND succeeded + failed = total AND id {any $2}`

// settled reports whether all of the block holds an SKU and nothing of it is in
// transition, as all requests that touched it have ended, which they then have for
// ever. Few of them, or it is not worth a look.
func (s *Store) settled(ctx context.Context, account license.AccountName, b *block, sku license.SKU) (bool, error) {
	if len(b.held) > max(1, len(b.devices)/leastBlock) {
		return false, nil
	}
	var ids []license.RequestID
	for _, h := range b.held {
		if h.sku != sku {
			return false, nil
		}
		ids = append(ids, h.request)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	n, err := first(s.reader(ctx), one[int], countComplete, string(account), only(ids))
	return n == len(ids), err
}

const takeBlock = `UPDATE sim SET sku = $5, request = $6
	WHERE account = $1 AND iccid BETWEEN $2 AND $3 AND number <= $4 AND sku = '' AND state = 'active' AND generation = '4G'`

// takeBlock gives the SKU to each SIM of a block, if all are free and eligible.
func (a *acceptance) takeBlock(want []taken) (steps []step) {
	r, from := a.params[0].Request, 0
	for part := range portions(a.tx, want) {
		devices := a.block.devices[from : from+len(part)]
		from += len(part)
		steps = append(steps, step{
			text: takeBlock,
			args: []any{
				string(a.account), string(devices[0].ICCID), string(devices[len(devices)-1].ICCID),
				a.block.newest, string(r.SKU), string(r.ID),
			},
			check: func(n int64) error {
				if n != int64(len(part)) {
					return errNotAll
				}
				for i := range part {
					part[i].device = devices[i]
				}
				return nil
			},
		})
	}
	return steps
}

const takeBlockBack = `UPDATE sim SET request = $7
	WHERE account = $1 AND iccid BETWEEN $2 AND $3 AND number <= $4 AND sku = $5 AND request = $6`

// takeBlockBack marks each SIM of a block as in transition, if all are as they were
// read.
func (a *acceptance) takeBlockBack(want []taken) (steps []step) {
	from := 0
	for _, h := range a.block.held {
		for part := range portions(a.tx, want[from:h.to]) {
			for i := range part {
				part[i].device, part[i].prior = a.block.devices[from+i], string(h.request)
			}
			from += len(part)
			steps = append(steps, step{
				text: takeBlockBack,
				args: []any{
					string(a.account), string(part[0].device.ICCID), string(part[len(part)-1].device.ICCID),
					a.block.newest, string(h.sku), string(h.request), string(a.params[0].Request.ID),
				},
				check: func(n int64) error {
					if n != int64(len(part)) {
						return errNotBlock
					}
					return nil
				},
			})
		}
	}
	return steps
}
