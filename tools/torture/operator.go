package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/operator/client"
)

// firstImported is the number of the first SIM that is imported beside the clients,
// and mostImported how many of a world's are at most.
const (
	firstImported = 1_000_000
	mostImported  = 60_000
)

func (w *world) operatorHeader(contentType string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + w.operator, "Content-Type": contentType}
}

// pause waits a little; false when the world stops.
func (w *world) pause(d time.Duration) bool {
	select {
	case <-w.stop:
		return false
	case <-w.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// buy adds licenses to a pool, one purchase after the other, each under a key and
// with a reference of its own.
func (w *world) buy() {
	for n := 1; w.pause(15 * time.Millisecond); n++ {
		account, reference := accounts[n%len(accounts)], fmt.Sprintf("PO-%d", n)
		body, err := json.Marshal(client.NewPurchase{Units: int64(1 + n%5), Reference: reference, Reason: "torture"})
		var status int
		var answer []byte
		if err == nil {
			status, answer, err = w.repeat("/operator/v1/accounts/"+account+"/pools/SIMSec-IoT/purchases", body, w.operatorHeader("application/json"), reference)
		}
		if err != nil {
			return
		}
		var p client.Problem
		_ = json.Unmarshal(answer, &p) // an answer that is none has no type
		w.mu.Lock()
		switch {
		case status == http.StatusCreated || status == http.StatusOK:
			w.bought[account+" "+reference] = acknowledged
			w.row.Work++
		case status == http.StatusConflict && strings.HasSuffix(p.Type, ":pending"):
			// The server that had begun it has died, and nobody knows.
			w.bought[account+" "+reference] = unknown
		default:
			w.wrong("purchase %s = %d %s", reference, status, answer)
		}
		w.mu.Unlock()
	}
}

// bring imports SIMs, a file after the other: all of it or nothing.
func (w *world) bring() {
	next := firstImported
	last := 0
	for i := 0; w.pause(time.Duration(40+last/10)*time.Millisecond) && next < firstImported+mostImported; i++ {
		n, account := w.plan.imports[i%len(w.plan.imports)], accounts[i%len(accounts)]
		var csv bytes.Buffer
		csv.WriteString("iccid,imei\n")
		for k := range n {
			fmt.Fprintf(&csv, "%s,%s\n", fleet.ICCID(next+k), fleet.IMEI(next+k))
		}
		status, answer, err := w.repeat("/operator/v1/sims/import?account="+account, csv.Bytes(), w.operatorHeader("text/csv"), "")
		if err != nil {
			return
		}
		var did client.Imported
		w.mu.Lock()
		switch {
		case status != http.StatusOK && status != http.StatusCreated || json.Unmarshal(answer, &did) != nil:
			w.wrong("import of %d SIMs = %d %.300s", n, status, answer)
		case did.Added+did.Unchanged != n || did.Added != 0 && did.Added != n:
			w.wrong("an import of %d SIMs added %d and found %d: it was done in part", n, did.Added, did.Unchanged)
		default:
			w.imported[next] = imported{account, n}
			w.row.Work += n
		}
		w.mu.Unlock()
		next, last = next+n, n
	}
}
