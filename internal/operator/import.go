package operator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/simlatch/simlatch/internal/inventory"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

// maxLines is how many remarks about lines an answer has.
const maxLines = 100

// upload is an inventory that was sent, with what is wrong in it.
type upload struct {
	// read reads it from its beginning; it may be called again.
	read     func() iter.Seq2[license.SIM, error]
	lineOf   func(index int) int // of the SIM that the last read gave as the index-th
	bad      []client.Line
	count    int // of bad lines, also those that are not in bad
	warnings []client.Line
	// failed is why accounts could not be looked up, which is no line's fault.
	failed error
}

// importSIMs imports SIMs from CSV or JSON. All lines are looked at before
// anything is written, and each bad one is named; then all are written or none.
func (a *API) importSIMs(c *call) (any, error) {
	ctx := c.r.Context()
	q := c.query("account", "dryRun")
	dryRun := oneOf(q, "dryRun", "true", "false") == "true"
	if q.err != nil {
		return nil, q.err
	}
	var fallback license.AccountName
	if name := q.get("account"); name != "" {
		var err error
		if fallback, err = a.findAccount(ctx, name); err != nil {
			return nil, err
		}
	}
	u, err := c.upload(ctx, fallback)
	if err != nil {
		return nil, err
	}
	for _, err := range u.read() {
		if err != nil {
			return nil, problemf(errImport, "nothing was imported: %v", err)
		}
	}
	if u.failed != nil {
		return nil, u.failed
	}
	if u.count > 0 {
		return nil, u.refused()
	}
	u.warnings = u.warnings[:min(len(u.warnings), maxLines)]
	warnings := append([]client.Line{}, u.warnings...)
	var result store.ImportResult
	if dryRun {
		result, err = c.store().CheckImport(ctx, u.read(), a.cfg.Clock.Now())
	} else {
		result, err = c.store().Import(ctx, u.read(), a.cfg.Clock.Now(), c.progress)
	}
	var conflicts *store.ConflictsError
	if errors.As(err, &conflicts) {
		for _, conflict := range conflicts.Conflicts {
			u.note(u.lineOf(conflict.Index), conflict)
		}
		return nil, u.refused()
	}
	return client.Imported{Added: result.Added, Unchanged: result.Unchanged, DryRun: dryRun, Warnings: warnings}, err
}

func (u *upload) note(line int, err error) {
	if u.count++; len(u.bad) < maxLines {
		u.bad = append(u.bad, client.Line{Line: line, Detail: err.Error()})
	}
}

func (u *upload) refused() error {
	p := problemf(errImport, "nothing was imported: %d of the lines cannot be; the first of them are named", u.count)
	p.lines, p.count = u.bad, u.count
	return p
}

func (c *call) upload(ctx context.Context, fallback license.AccountName) (*upload, error) {
	switch t := c.mediaType(); t {
	case "text/csv", "application/csv", "":
		return c.csv(ctx, fallback), nil
	case "application/json":
		return c.json(ctx, fallback)
	default:
		return nil, problemf(errMediaType, "the body is %.60q; SIMs come as text/csv or application/json", t)
	}
}

// findOnce finds accounts, each of them once, for the lines of an upload.
func (c *call) findOnce(ctx context.Context, u *upload) func(license.AccountName) (license.AccountName, error) {
	type found struct {
		name license.AccountName
		err  error
	}
	known := map[license.AccountName]found{}
	return func(name license.AccountName) (license.AccountName, error) {
		f, ok := known[name]
		if !ok {
			f.name, f.err = c.api.findAccount(ctx, string(name))
			known[name] = f
			if f.err != nil && !errors.Is(f.err, license.ErrNotFound) {
				u.failed = cmp.Or(u.failed, f.err)
			}
		}
		return f.name, f.err
	}
}

func (c *call) csv(ctx context.Context, fallback license.AccountName) *upload {
	u := &upload{}
	reader := inventory.Reader{Name: "the file", Account: fallback, FindAccount: c.findOnce(ctx, u)}
	reader.Bad = func(line int, err error) bool { u.note(line, err); return true }
	u.lineOf = reader.LineOf
	u.read = func() iter.Seq2[license.SIM, error] {
		u.bad, u.count, u.warnings = nil, 0, nil
		reader.Warn = func(text string) {
			if len(u.warnings) < maxLines {
				u.warnings = append(u.warnings, warningOf(text))
			}
		}
		return reader.Read(bytes.NewReader(c.body))
	}
	return u
}

// warningOf takes a reader's warning, "the file:12: …", apart.
func warningOf(text string) client.Line {
	_, rest, _ := strings.Cut(text, ":")
	number, detail, _ := strings.Cut(rest, ": ")
	line := 0
	for _, digit := range number {
		line = 10*line + int(digit-'0')
	}
	return client.Line{Line: line, Detail: detail}
}

func (c *call) json(ctx context.Context, fallback license.AccountName) (*upload, error) {
	var in client.NewSIMs
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if len(in.SIMs) == 0 {
		return nil, problemf(errInvalid, "sims is empty")
	}
	u := &upload{}
	find := c.findOnce(ctx, u)
	u.lineOf = func(index int) int { return index } // nothing is left out, or nothing is imported
	u.read = func() iter.Seq2[license.SIM, error] {
		u.bad, u.count, u.warnings = nil, 0, nil
		return func(yield func(license.SIM, error) bool) {
			for i, s := range in.SIMs {
				text := inventory.Text{
					Account: s.Account, ICCID: s.ICCID, IMEI: s.IMEI, MDN: s.MDN, IMSI: s.IMSI, State: s.State, Generation: s.Generation,
				}
				sim, err := text.SIM(fallback, func(warning string) {
					if len(u.warnings) < maxLines {
						u.warnings = append(u.warnings, client.Line{Line: i + 1, Detail: warning})
					}
				})
				if err == nil {
					sim.Account, err = find(sim.Account)
				}
				if err != nil {
					u.note(i+1, err)
				} else if !yield(sim, nil) {
					return
				}
			}
		}
	}
	return u, nil
}
