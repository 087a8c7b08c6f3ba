package store

import (
	"context"

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
	newest  int64 // the greatest of their numbers: a SIM that comes between them later has a greater one
}

const selectBlock = `SELECT iccid, imei, mdn, number FROM sim
	WHERE account = $1 AND iccid BETWEEN $2 AND $3 ORDER BY iccid LIMIT $4`

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
			number int64
		}
		got, err := collect(s.reader(ctx), func(scan func(...any) error) (r row, err error) {
			return r, scan(&r.ICCID, &r.IMEI, &r.MDN, &r.number)
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
			}
		}
	}
	return b, nil
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
