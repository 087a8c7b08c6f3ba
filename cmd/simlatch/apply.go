package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/simlatch/simlatch/internal/bulk"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// applyOptions say how to apply a plan.
type applyOptions struct {
	batch       int
	skipBad     bool
	yesLifetime bool
	repeatLost  bool
	listen      string
	callbackURL string
	timeout     time.Duration
	result      string
	form        string

	few        bool // devices, whose outcomes are printed and not put in a file
	unfinished bool // in the end: there is something left to do
}

func newApplyCommand() *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply PLAN",
		Short: "Carry out what simlatch plan has planned",
		Long: `Carry out a plan that 'simlatch plan' has made: assign or unassign its devices, in
requests of at most --batch, and wait for how each device ends.

It may be interrupted anywhere, by Ctrl-C, kill -9 or a power cut, and started
again: it goes on where it was, and does nothing twice. What it has done stands in
a journal beside the plan. A server that restarts, is out of reach or asks for
patience is waited for, until nothing has come forward for --timeout.

How the devices end is asked of the server. With --listen this command receives
the callbacks as well, which tell why a device failed and, of servers other than
Simlatch, which; it registers itself as the account's listener, passes on what is
not its own, and puts the former listener back in the end.

The outcome of each row, in the order of the fleet, is written to --result. The exit
status is 0 when all devices succeeded, 3 when some failed, and 4 when time ran out;
the rows that the plan left out do not count.

Lifetime licenses cannot be taken back. A plan that assigns them needs
--yes-lifetime, or an answer at the terminal.` + onServer,
		Example: `  simlatch apply fleet.plan
  simlatch apply fleet.plan --skip-bad --listen 127.0.0.1:9001
  simlatch apply fleet.plan --yes-lifetime --batch 100 --timeout 2h`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runApply(cmd, o, args[0]) },
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"plan"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	clientFlags(cmd)
	applyFlags(cmd, &o)
	cmd.Flags().BoolVar(&o.skipBad, "skip-bad", false, "leave out the rows that would not be done")
	cmd.Flags().BoolVar(&o.repeatLost, "repeat-lost", false, "send requests again of which nobody can tell whether they were accepted: check first")
	return cmd
}

// applyFlags adds the flags that say how to apply a plan.
func applyFlags(cmd *cobra.Command, o *applyOptions) {
	f := cmd.Flags()
	f.IntVar(&o.batch, "batch", 0, "at most this `number` of devices in a request (default 1000 for Simlatch, 100 for others)")
	f.BoolVar(&o.yesLifetime, "yes-lifetime", false, "yes, assign licenses that nobody can take back")
	f.StringVar(&o.listen, "listen", "", "`address` to receive callbacks on; port 0 takes a free one")
	f.StringVar(&o.callbackURL, "callback-url", "", "the listener's `URL` as the server sees it, if not that of --listen")
	f.DurationVar(&o.timeout, "timeout", 15*time.Minute, "end when nothing has come forward for so long")
	f.StringVar(&o.result, "result", "", "`file` for the outcome of each row (default PLAN with .result.csv instead of .plan)")
	outputFlag(cmd, &o.form)
}

// check says what is wrong with the options by themselves.
func (o *applyOptions) check() error {
	switch {
	case o.batch < 0:
		return usagef("--batch %d: it must not be negative", o.batch)
	case o.timeout <= 0:
		return usagef("--timeout %s: it must be positive", o.timeout)
	case o.callbackURL != "" && o.listen == "":
		return usagef("--callback-url needs --listen")
	}
	_, err := newLister(io.Discard, o.form, resultColumns)
	return err
}

func runApply(cmd *cobra.Command, o applyOptions, path string) error {
	if err := o.check(); err != nil {
		return err
	}
	p, err := bulk.ReadPlan(path)
	if err != nil {
		return err
	}
	return o.apply(cmd, p, path)
}

// apply carries a plan out.
func (o *applyOptions) apply(cmd *cobra.Command, p *bulk.Plan, path string) (err error) {
	run, err := bulk.Open(p, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	if run.Complete() && (!o.repeatLost || run.Progress().Unknown == 0) {
		say(cmd.ErrOrStderr(), "simlatch: this plan has been applied before; nothing is left to do")
		return o.finish(cmd, run, p, path, 0, nil)
	}
	if !run.Begun() {
		if err := o.allowed(cmd, p); err != nil {
			return err
		}
	}
	client, err := o.client(cmd, p)
	if err != nil {
		return err
	}
	cfg := bulk.Config{Client: client, Batch: o.batch, Timeout: o.timeout, RepeatLost: o.repeatLost}
	if err := o.openListener(cmd.Context(), &cfg); err != nil {
		return err
	}
	if cfg.Listener != nil {
		defer cfg.Listener.Close()
	}
	start := time.Now()
	d := display(cmd.Context(), cmd.ErrOrStderr(), run, p.Action+"ed")
	cfg.Notice = d.notice
	err = run.Apply(cmd.Context(), cfg)
	d.end()
	return o.finish(cmd, run, p, path, time.Since(start), o.explain(err, cfg))
}

// openListener opens what callbacks are received on, if that is wanted.
func (o *applyOptions) openListener(ctx context.Context, cfg *bulk.Config) error {
	if o.listen == "" {
		return nil
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listening for callbacks: %w", err)
	}
	cfg.Listener = ln
	cfg.ListenerURL, _ = listenerURL(ln.Addr())
	if o.callbackURL != "" {
		cfg.ListenerURL = o.callbackURL
	}
	return nil
}

// client is the one of the server that the plan was made for.
func (o *applyOptions) client(cmd *cobra.Command, p *bulk.Plan) (*m2m.Client, error) {
	client, profile, err := clientOf(cmd)
	if err != nil {
		return nil, err
	}
	if profile.server != p.Server {
		return nil, usagef("the plan was made for %s, and this is %s: give the --server or the --profile of the plan", p.Server, profile.server)
	}
	if profile.acct != "" && !sameAccount(profile.acct, p.Account) && cmd.Flags().Changed("account") {
		return nil, usagef("the plan was made for account %s, not for %s", p.Account, profile.acct)
	}
	return client, nil
}

func sameAccount(a, b string) bool {
	return license.AccountName(a).Folded() == license.AccountName(b).Folded()
}

// allowed says whether a plan may begin: its fleet is clean or what is not may be
// left out, and a person has said that licenses may go for good.
func (o *applyOptions) allowed(cmd *cobra.Command, p *bulk.Plan) error {
	switch bad := len(p.Rows) - p.OK(); {
	case p.OK() == 0:
		return withStatus(exitPartly, fmt.Errorf("not one of %s would be done; nothing was sent", rows(len(p.Rows))))
	case bad > 0 && !p.SkipBad && !o.skipBad:
		return fmt.Errorf("%s of %s would not be done, and nothing was sent: mend the file and plan again, or leave them out with --skip-bad",
			thousands(bad), rows(len(p.Rows)))
	case !p.Irreversible || o.yesLifetime:
		return nil
	}
	say(cmd.ErrOrStderr(), "%s", irreversible(p))
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return usagef("nothing was sent: to go on, give --yes-lifetime")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "To go on, type how many licenses that is (%d): ", p.OK())
	line, err := bufio.NewReader(in).ReadString('\n')
	if typed, _ := strconv.Atoi(strings.ReplaceAll(strings.TrimSpace(line), ",", "")); err != nil || typed != p.OK() {
		return errors.New("that was not the number; nothing was sent")
	}
	return nil
}

// explain says what an error of a run means to whoever typed the command.
func (o *applyOptions) explain(err error, cfg bulk.Config) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bulk.ErrTimeout), errors.Is(err, bulk.ErrUntold):
		return withStatus(exitTimeout, err)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case errors.Is(err, m2m.ErrCallbackURL) && cfg.Listener != nil && o.callbackURL == "":
		if _, allow := listenerURL(cfg.Listener.Addr()); allow != "" {
			return fmt.Errorf("%w; a Simlatch server calls this address only with --callback-allow %s", err, allow)
		}
	}
	return called(err)
}

// finish writes the result and says how it ended.
func (o *applyOptions) finish(cmd *cobra.Command, run *bulk.Run, p *bulk.Plan, path string, took time.Duration, err error) error {
	if !run.Begun() { // nothing has happened
		return err
	}
	results := run.Results()
	s := bulk.Summarize(results)
	left := s.ByStatus[bulk.StatusPending] + s.ByStatus[bulk.StatusUnsent]
	o.unfinished = left+s.ByStatus[bulk.StatusUnknown] > 0
	summary := cmd.OutOrStdout()
	if o.form != formTable || o.few {
		summary = cmd.ErrOrStderr()
		if err2 := writeList(cmd.OutOrStdout(), o.form, resultColumns, results); err2 != nil {
			return errors.Join(err, err2)
		}
	}
	if !o.few {
		printSummary(summary, p, s, took)
	}
	if file := o.resultFile(path); file != "" {
		if err2 := bulk.WriteResultFile(file, results); err2 != nil {
			return errors.Join(err, err2)
		}
		say(summary, "Each row is in %s.", file)
	}
	if left > 0 {
		say(cmd.ErrOrStderr(), "simlatch: to go on with what is left, run 'simlatch apply %s' again", path)
	}
	return applyVerdict(s, err)
}

// resultFile is where the outcomes are put; empty is nowhere.
func (o *applyOptions) resultFile(path string) string {
	if o.result == "" && !o.few {
		return bulk.ResultPath(path)
	}
	return o.result
}

// resultColumns are those of a result, as in its file.
var resultColumns = []column[bulk.Result]{
	{"iccid", "ICCID", func(r bulk.Result) any { return r.ICCID }},
	{"imei", "IMEI", func(r bulk.Result) any { return r.IMEI }},
	{"request_id", "REQUEST", func(r bulk.Result) any { return r.RequestID }},
	{"status", "STATUS", func(r bulk.Result) any { return r.Status }},
	{"code", "CODE", func(r bulk.Result) any { return r.Code }},
	{"message", "MESSAGE", func(r bulk.Result) any { return r.Message }},
	{"time", "TIME", func(r bulk.Result) any { return r.Time }},
}

// printSummary counts how the rows ended.
func printSummary(w io.Writer, p *bulk.Plan, s bulk.Summary, took time.Duration) {
	line := fmt.Sprintf("%s %s, account %s, %s", p.Action, p.SKU, p.Account, rows(s.Rows))
	if took > 0 {
		line += fmt.Sprintf(" in %s", took.Round(100*time.Millisecond))
	}
	say(w, "%s:", line)
	width := len(thousands(s.Rows)) + 2
	for _, status := range []bulk.Status{
		bulk.StatusSuccess, bulk.StatusFailed, bulk.StatusUnknown, bulk.StatusPending, bulk.StatusUnsent, bulk.StatusSkipped,
	} {
		if n := s.ByStatus[status]; n > 0 {
			say(w, "%s  %s", pad(thousands(n), width), status)
		}
	}
	for i, f := range s.Failures {
		if i == 0 {
			say(w, "Failed:")
		}
		say(w, "%s  %s (%s)", pad(thousands(f.Rows), width), printable(strings.TrimSuffix(f.Verdict, ".")), printable(f.Code))
	}
}

// applyVerdict is the exit status of a run.
func applyVerdict(s bulk.Summary, err error) error {
	if err != nil {
		return err
	}
	var words []string
	if n := s.ByStatus[bulk.StatusFailed]; n > 0 {
		words = append(words, thousands(n)+" failed")
	}
	if n := s.ByStatus[bulk.StatusUnknown]; n > 0 {
		words = append(words, thousands(n)+" ended in a way that is not known")
	}
	if len(words) == 0 {
		return nil
	}
	return withStatus(exitPartly, fmt.Errorf("of %s %s", rows(s.Rows), strings.Join(words, " and ")))
}
