package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/inventory"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

// books are what commands of an operator read and write: the database itself,
// or, given --server, the operator API of a server. The times are those of the
// database's clerk; a server has its own.
type books interface {
	accountList
	accessBooks
	AddAccount(ctx context.Context, name license.AccountName, now time.Time) error
	Pools(ctx context.Context, account license.AccountName) ([]license.Pool, error)
	AddPurchase(ctx context.Context, p license.Purchase, now time.Time) (license.Pool, error)
	SetThreshold(ctx context.Context, account license.AccountName, sku license.SKU, threshold int64) (license.Pool, error)
	// EachDevice lists the devices that a filter selects, whatever its Limit.
	EachDevice(ctx context.Context, f license.DeviceFilter) iter.Seq2[license.SIM, error]
	SetState(ctx context.Context, account license.AccountName, iccids []license.ICCID, state license.State) (int, error)
	ImportFile(ctx context.Context, f deviceFile) (store.ImportResult, error)
	StuckTasks(ctx context.Context, account license.AccountName) ([]store.StuckTask, error)
	ResolveStuck(ctx context.Context, t store.StuckTask, v license.Verdict, reason string, now time.Time) error
	Progress(ctx context.Context, account license.AccountName, id license.RequestID) (license.Progress, error)
	Callbacks(ctx context.Context, f store.CallbackFilter) iter.Seq2[store.KeptCallback, error]
	Callback(ctx context.Context, account license.AccountName, request license.RequestID, iccid license.ICCID) (store.KeptCallback, error)
	Attempts(ctx context.Context, account license.AccountName, request license.RequestID, iccid license.ICCID) ([]store.Attempt, error)
	SendAll(ctx context.Context, o store.SendOrder, now time.Time) (store.SendReport, error)
}

// accountList is the part of books that finds accounts.
type accountList interface {
	Accounts(ctx context.Context) ([]license.AccountName, error)
}

// deviceFile is a file of devices to import.
type deviceFile struct {
	in      io.Reader
	name    string
	account license.AccountName // of lines that name none; may be empty
	// warn is told of what may be wrong, progress how many devices were read.
	warn     func(string)
	progress func(int)
}

// onBooks ends the help of the commands that work on the database or on a server.
const onBooks = `

This works on the database itself, beside a running server too, or, with
--server, on a server, through its operator API and as the operator whose token
--token-file or SIMLATCH_OPERATOR_TOKEN has. What is changed counts from the next
call on.`

// booksFlags adds the flags that say where the commands of a group work.
func booksFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.String("server", "", "work through the operator API of the server at this `URL`, not on the database")
	f.String("token-file", "", "`file` with the operator's token for --server; - is standard input")
	f.String("tls-ca", "", "of --server: trust the authorities in this PEM `file` instead of the system's")
}

// withBooks opens the books for fn.
func withBooks(cmd *cobra.Command, fn func(books) error) error {
	text := func(name string) string { v, _ := cmd.Flags().GetString(name); return v } // booksFlags added it
	server := trimURL(text("server"))
	if server == "" {
		for _, name := range []string{"token-file", "tls-ca"} {
			if text(name) != "" {
				return usagef("--%s is for --server, which is not given", name)
			}
		}
		return withStore(cmd, func(s *store.Store) error { return fn(database{s}) })
	}
	if f := cmd.Flags().Lookup("database"); f.Changed && f.Annotations[originFlag] == nil {
		return usagef("give --server or --database, not both")
	}
	token, err := secretSource{
		what: "operator's token", file: text("token-file"), flag: "token-file", env: "SIMLATCH_OPERATOR_TOKEN",
	}.read(cmd.InOrStdin(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // which is one unless somebody has replaced it
	if ca := text("tls-ca"); ca != "" {
		pool, err := readAuthorities(ca)
		if err != nil {
			return err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c, err := client.New(client.Config{
		BaseURL: server, Token: string(token), UserAgent: "simlatch-cli",
		HTTP: &http.Client{Transport: transport, CheckRedirect: noRedirect},
	})
	if err != nil {
		return withStatus(exitUsage, err)
	}
	if risk := plainRisk(server); risk != "" {
		say(cmd.ErrOrStderr(), "simlatch: warning: %s", risk)
	}
	return fn(remote{c})
}

// database is the books as the database has them.
type database struct{ *store.Store }

// EachDevice implements books.
func (d database) EachDevice(ctx context.Context, f license.DeviceFilter) iter.Seq2[license.SIM, error] {
	return func(yield func(license.SIM, error) bool) {
		for f.Limit = devicePage; ; {
			sims, err := d.Devices(ctx, f)
			if err != nil {
				yield(license.SIM{}, err)
				return
			}
			for _, sim := range sims {
				if !yield(sim, nil) {
					return
				}
			}
			if len(sims) < devicePage {
				return
			}
			f.After = sims[len(sims)-1].Number
		}
	}
}

// ImportFile implements books.
func (d database) ImportFile(ctx context.Context, f deviceFile) (store.ImportResult, error) {
	reader := inventory.Reader{Name: f.name, Account: f.account, Warn: f.warn}
	reader.FindAccount = func(name license.AccountName) (license.AccountName, error) {
		return findAccountIn(ctx, d, string(name))
	}
	result, err := d.Import(ctx, reader.Read(bufio.NewReaderSize(f.in, 1<<20)), time.Now(), f.progress)
	if err != nil {
		err = reader.Locate(err)
	}
	return result, err
}

// remoteError is a problem of a server with what it means here, so that commands
// need not know where they work.
type remoteError struct{ problem, means error }

func (e *remoteError) Error() string { return e.problem.Error() }

func (e *remoteError) Unwrap() []error { return []error{e.problem, e.means} }

// meant gives an error of the operator API the meaning it has on the database.
func meant(err error) error {
	if err == nil {
		return nil
	}
	for name, means := range map[string]error{
		"not-found": license.ErrNotFound, "exists": license.ErrExists, "insufficient": license.ErrInsufficient,
		"not-ended": license.ErrNotEnded, "no-listener": license.ErrNoListener, "not-stuck": license.ErrNotFound,
	} {
		if client.IsType(err, name) {
			return &remoteError{err, means}
		}
	}
	if client.IsType(err, "token") {
		return fmt.Errorf("%w; is it the token of this server's operator?", err)
	}
	var p *client.Problem
	if errors.As(err, &p) && p.Request != "" && p.Status >= http.StatusInternalServerError {
		return fmt.Errorf("%w (request id %s)", err, p.Request)
	}
	return err
}
