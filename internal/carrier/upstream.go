package carrier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// Records is what an Upstream remembers, so that a crash or an answer that never
// came has nothing sent twice; the store.
type Records interface {
	// UpstreamTasks tells what is known of tasks of one request; those that were
	// never sent are not among them.
	UpstreamTasks(ctx context.Context, account license.AccountName, request license.RequestID, iccids []license.ICCID) ([]license.UpstreamTask, error)
	// UpstreamBatch tells all that is known of a batch.
	UpstreamBatch(ctx context.Context, account license.AccountName, request license.RequestID, key string) (license.UpstreamBatch, error)
	// BeginUpstream writes a batch down before it is sent. False: some of its
	// tasks were sent in another, and nothing was written.
	BeginUpstream(ctx context.Context, b license.UpstreamBatch) (bool, error)
	// RetryUpstream allows one caller to send a batch again under its key, which
	// nobody has sent since a time.
	RetryUpstream(ctx context.Context, b license.UpstreamBatch, now, since time.Time) (bool, error)
	// NameUpstream remembers the requestId that a batch was answered with.
	NameUpstream(ctx context.Context, b license.UpstreamBatch) error
	// ReleaseUpstream says that a batch was not carried out; its tasks may be sent
	// again, so many together at most where that is not zero.
	ReleaseUpstream(ctx context.Context, b license.UpstreamBatch, most int) error
	// DecideUpstream writes down how those tasks of a batch ended of which that
	// was not known.
	DecideUpstream(ctx context.Context, b license.UpstreamBatch, v license.Verdict, code, comment string) error
	// HearUpstream writes down what callbacks said and settles their tasks, whoever
	// has a lease on them. True: callbacks of ours are due.
	HearUpstream(ctx context.Context, now time.Time, account license.AccountName, words []license.UpstreamWord) ([]license.UpstreamHearing, bool, error)
}

// UpstreamConfig sets an Upstream up.
type UpstreamConfig struct {
	URL                string // of the upstream, as in m2m.Config
	Key, Secret        string // of the application there
	Username, Password string // of the user there
	// CallbackURL is where the upstream reaches Handler. Each account's name is
	// appended to it.
	CallbackURL string
	Records     Records // required

	// Accounts are the names of accounts there, where they are not those here.
	Accounts map[license.AccountName]string
	Batch    int     // devices in a request, at most; 0: 100
	Rate     float64 // calls a second; 0: without limit

	Timeout  time.Duration // of one call; 0: 10s
	Patience time.Duration // before a request's status is asked for; 0: 1m
	Shortage time.Duration // how long to wait for licenses that are lacking there; 0: 1h
	Barred   time.Duration // how long to wait when credentials were refused, the first time; 0: 5m
	Deadline time.Duration // after which an unknown outcome is for an operator; 0: 24h

	// Observe, when not nil, is put around what makes the calls.
	Observe func(http.RoundTripper) http.RoundTripper
	// Wake, when not nil, is called when callbacks of ours are due.
	Wake    func()
	Clock   license.Clock         // nil: the machine's
	Logger  *slog.Logger          // nil: logs nothing
	Metrics prometheus.Registerer // nil: counts for nobody
}

func (c UpstreamConfig) complete() (UpstreamConfig, error) {
	u, err := url.Parse(c.CallbackURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return c, errors.New("the callback URL must be of the form https://host/path")
	}
	if c.Records == nil {
		return c, errors.New("records are required")
	}
	if c.Batch < 0 || !(c.Rate >= 0) {
		return c, errors.New("neither the batch nor the rate can be negative")
	}
	c.Records = written{c.Records}
	c.Batch = cmp.Or(c.Batch, DefaultUpstreamBatch)
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.Patience = cmp.Or(c.Patience, time.Minute)
	c.Shortage = cmp.Or(c.Shortage, time.Hour)
	c.Barred = cmp.Or(c.Barred, 5*time.Minute)
	c.Deadline = cmp.Or(c.Deadline, 24*time.Hour)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Clock == nil {
		c.Clock = license.SystemClock{}
	}
	if c.Wake == nil {
		c.Wake = func() {}
	}
	return c, nil
}

// DefaultUpstreamBatch is how many devices a request upstream has at most: what
// the reference's own SDKs say (thingspace-api.md 9.4).
const DefaultUpstreamBatch = 100

// Upstream is a carrier that is another service with the same API: the reference
// platform, or a Simlatch. Tasks become requests there, their outcomes come by
// callbacks to Handler.
//
// Before a request is sent, it is written down, with a key; and then under that
// key the requestId it was answered with. A request whose answer did not come is
// never simply sent again: see ask. Run must run beside Provision.
type Upstream struct {
	cfg      UpstreamConfig
	client   *m2m.Client
	limit    *rate.Limiter
	metrics  *upstreamMetrics
	heard    chan *heardWord
	entering chan struct{} // holds one while credentials are tried or an account is registered
	simlatch atomic.Bool   // an answer said that the upstream is a Simlatch

	mu         sync.Mutex // guards what follows
	registered map[license.AccountName]bool
	asked      map[string]time.Time // when the status of a batch was asked for, by its key
	barred     time.Time            // until then nothing is sent: the credentials were refused
	refusals   int                  // of the credentials, one after the other
}

// NewUpstream makes an Upstream. It calls nobody.
func NewUpstream(cfg UpstreamConfig) (*Upstream, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("the upstream carrier: %w", err)
	}
	u := &Upstream{
		cfg: cfg, heard: make(chan *heardWord), entering: make(chan struct{}, 1),
		registered: map[license.AccountName]bool{}, asked: map[string]time.Time{},
		limit: rate.NewLimiter(rate.Inf, 1),
	}
	if cfg.Rate > 0 {
		u.limit = rate.NewLimiter(rate.Limit(cfg.Rate), 1)
	}
	u.client, err = m2m.New(m2m.Config{
		BaseURL: cfg.URL, Key: cfg.Key, Secret: cfg.Secret, Username: cfg.Username, Password: cfg.Password,
		Retries: -1, // what may be repeated is for us to say
		HTTPClient: &http.Client{
			Transport: newOnceTransport(u), Timeout: cfg.Timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
	if err != nil {
		return nil, fmt.Errorf("the upstream carrier: %w", err)
	}
	if u.metrics, err = newUpstreamMetrics(cfg.Metrics); err != nil {
		return nil, fmt.Errorf("the upstream carrier: %w", err)
	}
	return u, nil
}

// theirs is an account's name there.
func (u *Upstream) theirs(account license.AccountName) string {
	return cmp.Or(u.cfg.Accounts[account], string(account))
}

// Provision answers with what is known of the tasks, having sent those that were
// not sent before. It fails when ctx has ended or the records cannot be read.
func (u *Upstream) Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("asking the upstream: %w", err)
	}
	if len(tasks) == 0 {
		return nil, nil
	}
	iccids := make([]license.ICCID, len(tasks))
	for i := range tasks {
		iccids[i] = tasks[i].Device.ICCID
	}
	known, err := u.cfg.Records.UpstreamTasks(ctx, tasks[0].Account, tasks[0].Request, iccids)
	if err != nil {
		return nil, err
	}
	p := &passage{u: u, now: u.cfg.Clock.Now(), out: make(map[license.ICCID]license.Outcome, len(tasks))}
	p.run(ctx, tasks, known)
	out := make([]license.Outcome, len(tasks))
	for i := range tasks {
		out[i] = p.out[tasks[i].Device.ICCID]
		out[i].Task = tasks[i]
	}
	return out, nil
}

// passage is one call of Provision.
type passage struct {
	u    *Upstream
	now  time.Time
	out  map[license.ICCID]license.Outcome // by device; what is missing is Retry
	stop *license.Outcome                  // what to say of tasks that are not sent any more
}

// run sorts the tasks by what is known of them and sees to each kind.
func (p *passage) run(ctx context.Context, tasks []license.Task, known []license.UpstreamTask) {
	by := make(map[license.ICCID]license.UpstreamTask, len(known))
	for _, k := range known {
		by[k.ICCID] = k
	}
	sorted := slices.SortedFunc(slices.Values(tasks), func(a, b license.Task) int { return cmp.Compare(a.Device.ICCID, b.Device.ICCID) })
	var fresh []license.Task
	open := map[string][]license.Task{} // by batch
	var keys []string
	for _, t := range sorted {
		switch k := by[t.Device.ICCID]; {
		case k.Verdict == license.Done || k.Verdict == license.Refused:
			p.out[t.Device.ICCID] = license.Outcome{Verdict: k.Verdict, Code: k.Code, Comment: k.Comment}
		case k.Key == "":
			fresh = append(fresh, t)
		default:
			if open[k.Key] == nil {
				keys = append(keys, k.Key)
			}
			open[k.Key] = append(open[k.Key], t)
		}
	}
	for _, key := range keys {
		p.ask(ctx, open[key], by[open[key][0].Device.ICCID])
	}
	for len(fresh) > 0 {
		n, most := 0, p.most(by[fresh[0].Device.ICCID])
		for n < len(fresh) && n < most && p.most(by[fresh[n].Device.ICCID]) == most {
			n++
		}
		p.send(ctx, fresh[:n:n])
		fresh = fresh[n:]
	}
}

func (p *passage) most(k license.UpstreamTask) int {
	return min(cmp.Or(k.Most, p.u.cfg.Batch), p.u.cfg.Batch)
}

// say gives tasks an outcome.
func (p *passage) say(tasks []license.Task, o license.Outcome) {
	for i := range tasks {
		p.out[tasks[i].Device.ICCID] = o
	}
}

// soonest is when a task whose callback has not come is looked at first; each
// time after, when it has waited as long again, but latest.
const (
	soonest = 250 * time.Millisecond
	latest  = 15 * time.Minute
)

// wait says of tasks that they were sent at a time, and are waited for.
func (p *passage) wait(tasks []license.Task, sent time.Time) {
	age := min(max(p.now.Sub(sent), soonest), latest)
	p.say(tasks, license.Outcome{Verdict: license.Later, Due: p.now.Add(age)})
}

// unclear says of tasks that nobody knows what became of them. They are asked
// about again, and in the end an operator is.
func (p *passage) unclear(tasks []license.Task, comment string) {
	p.u.metrics.unclear.Add(float64(len(tasks)))
	for i := range tasks {
		o := license.Outcome{Verdict: license.Retry, Comment: comment}
		if !p.now.Before(tasks[i].At.Add(p.u.cfg.Deadline)) {
			o.Verdict = license.Stuck
		}
		p.out[tasks[i].Device.ICCID] = o
	}
}
