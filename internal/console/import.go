package console

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/operator/client"
)

// An upload is a file of SIMs that was checked, and waits to be written or is.
type upload struct {
	id      string
	owner   string // the operator
	account string // of lines that name none
	name    string // of the file
	data    []byte // nil once it is written
	made    time.Time
	checked client.Imported

	// What follows is guarded by imports.mu.
	begun bool
	done  int // SIMs dealt with
	ended bool
	err   error
	wrote client.Imported
}

// imports are the uploads that this node holds.
type imports struct {
	mu      sync.Mutex
	of      map[string]*upload
	running sync.WaitGroup
}

const (
	// keepUpload is how long an upload waits to be confirmed, or its result to be
	// looked at.
	keepUpload = 15 * time.Minute
	// maxUploads bounds what is held in memory: an operator has one at a time.
	maxUploads = 4
	// importTimeout bounds the writing of one.
	importTimeout = 15 * time.Minute
)

func newImports() *imports { return &imports{of: map[string]*upload{}} }

// add holds an upload, in the place of its owner's last; false where too many
// others are held.
func (i *imports) add(u *upload) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for id, other := range i.of {
		if other.owner == u.owner && (!other.begun || other.ended) {
			delete(i.of, id)
		}
	}
	if len(i.of) >= maxUploads {
		return false
	}
	i.of[u.id] = u
	return true
}

// find is an operator's upload as it stands.
func (i *imports) find(id, owner string) (u upload, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if found := i.of[id]; found != nil && found.owner == owner {
		return *found, true
	}
	return u, false
}

// forget drops what nobody came back to.
func (i *imports) forget(now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for id, u := range i.of {
		if now.Sub(u.made) > keepUpload && (!u.begun || u.ended) {
			delete(i.of, id)
		}
	}
}

// wait waits for those that are being written.
func (i *imports) wait() { i.running.Wait() }

// importForm shows where to drop a file.
func (c *Console) importForm(v *visit) error {
	names, err := v.accountNames()
	if err != nil {
		return err
	}
	return v.show(frame{title: "Import SIMs", here: "import"}, importPage(v, names))
}

// upload takes a file, and checks it: nothing is written, and each bad line is
// named.
func (c *Console) upload(v *visit) error {
	u := &upload{id: rand.Text(), owner: v.who.Name, account: v.value("account"), made: time.Now()}
	file, header, err := v.r.FormFile("file")
	if err == nil {
		u.name = header.Filename
		u.data, err = io.ReadAll(file)
		_ = file.Close()
	}
	if text := v.value("text"); err != nil || len(u.data) == 0 {
		u.name, u.data = "what was pasted", []byte(text)
	}
	if len(u.data) == 0 {
		v.invalid("Drop a file, choose one, or paste lines.")
		return c.importForm(v)
	}
	_, err = v.ask(v.r.Context(), u.question(true), &u.checked)
	if err != nil {
		return v.again(err, c.importForm)
	}
	if !c.imports.add(u) {
		v.status = http.StatusServiceUnavailable
		v.alert = &alert{title: "Others are importing", text: "This server holds as many files as it may. Try again when they are done."}
		return c.importForm(v)
	}
	http.Redirect(v.w, v.r, Prefix+"/import/"+u.id, http.StatusSeeOther)
	return nil
}

func (u *upload) question(dryRun bool) question {
	q := url.Values{}
	if dryRun {
		q.Set("dryRun", "true")
	}
	if u.account != "" {
		q.Set("account", u.account)
	}
	return question{method: http.MethodPost, path: "/sims/import", query: q, upload: u.data, uploadType: "text/csv"}
}

// importShow shows an upload: what it would do, how far it is, or what it did.
func (c *Console) importShow(v *visit) error {
	u, ok := c.imports.find(v.r.PathValue("id"), v.who.Name)
	if !ok {
		v.fail(http.StatusNotFound, "This upload is not here any more", "An upload waits a quarter of an hour on the server that took it. Upload the file again: what is known already stays as it is.")
		return nil
	}
	if u.ended && u.err != nil {
		if err := v.refused(u.err); err != nil {
			return err
		}
		v.status = http.StatusOK
	}
	warnings := newGrid("Warnings", lineColumns(), u.checked.Warnings, nil)
	if v.wantsCSV("") {
		return sendGrid(v, warnings)
	}
	warnings.csv = v.here(map[string]string{"format": "csv"})
	return v.show(frame{title: "Import " + u.name, here: "import"}, uploadPage(v, u, warnings))
}

func lineColumns() []column[client.Line] {
	return []column[client.Line]{
		{"Line", func(l client.Line) cell { return number(l.Line) }},
		{"Remark", func(l client.Line) cell { return words(l.Detail) }},
	}
}

// importStart writes an upload, whatever becomes of the browser.
func (c *Console) importStart(v *visit) error {
	id := v.r.PathValue("id")
	if _, ok := c.imports.find(id, v.who.Name); !ok {
		return c.importShow(v)
	}
	c.imports.mu.Lock()
	u := c.imports.of[id]
	first := u != nil && !u.begun
	if first {
		u.begun = true
		c.imports.running.Add(1)
	}
	c.imports.mu.Unlock()
	if first {
		who := v.who
		who.Progress = func(done int) {
			c.imports.mu.Lock()
			defer c.imports.mu.Unlock()
			u.done = done
		}
		ctx := context.WithoutCancel(v.r.Context())
		go c.write(ctx, &asker{api: c.cfg.Operator, who: who}, u)
	}
	http.Redirect(v.w, v.r, Prefix+"/import/"+url.PathEscape(id), http.StatusSeeOther)
	return nil
}

// write writes an upload.
func (c *Console) write(ctx context.Context, a *asker, u *upload) {
	defer c.imports.running.Done()
	ctx, cancel := context.WithTimeout(ctx, importTimeout)
	defer cancel()
	var wrote client.Imported
	_, err := a.ask(ctx, u.question(false), &wrote)
	c.imports.mu.Lock()
	defer c.imports.mu.Unlock()
	u.ended, u.err, u.wrote, u.data, u.made = true, err, wrote, nil, time.Now()
}
