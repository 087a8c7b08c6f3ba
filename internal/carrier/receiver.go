package carrier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// OutcomesPath is where a carrier brings outcomes by itself.
const OutcomesPath = "/operator/v1/carrier/outcomes"

// Settler is where late outcomes are settled; the store.
type Settler interface {
	SettleLate(ctx context.Context, p license.LateParams) (license.LateSettlement, error)
}

// ReceiverConfig sets a Receiver up.
type ReceiverConfig struct {
	Settler Settler // required
	// Secret is what calls are signed with, required; see HTTPConfig.
	Secret string
	// Wake, when not nil, is called when callbacks are due.
	Wake func()

	Clock   license.Clock         // nil: the machine's
	Logger  *slog.Logger          // nil: logs nothing
	Metrics prometheus.Registerer // nil: counts for nobody
}

// Receiver takes the outcomes in that a carrier brings by itself: after it
// answered "later", or after nobody waited for it any more. They may come twice,
// late, or of tasks that it was never given; each is told what became of it, and
// none counts twice.
type Receiver struct {
	cfg     ReceiverConfig
	metrics *lateMetrics
}

const (
	// maxLate is how many outcomes one call may bring.
	maxLate = 500
	// lateTime is how long a call's body may take.
	lateTime = 20 * time.Second
	// tellStrange is how many strange outcomes of one call the log names.
	tellStrange = 10
)

// NewReceiver makes a Receiver. It fails without a settler or a usable secret,
// and when a metric is registered already.
func NewReceiver(cfg ReceiverConfig) (*Receiver, error) {
	if cfg.Settler == nil {
		return nil, errors.New("late outcomes need a settler")
	}
	if err := CheckSecret(cfg.Secret); err != nil {
		return nil, fmt.Errorf("the carrier's secret: %w", err)
	}
	if cfg.Clock == nil {
		cfg.Clock = license.SystemClock{}
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	metrics, err := newLateMetrics(cfg.Metrics)
	return &Receiver{cfg: cfg, metrics: metrics}, err
}

// problem is why a call is refused, as RFC 9457 has it.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	after  time.Duration
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	said, refused := r.read(w, req)
	var results []resultMessage
	if refused == nil {
		results, refused = r.settle(req.Context(), said)
	}
	if refused != nil {
		r.metrics.refused.Inc()
		refuse(w, refused)
		return
	}
	reply(w, http.StatusOK, "application/json", resultsMessage{Results: results})
}

func refuse(w http.ResponseWriter, p *problem) {
	switch p.Status {
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(p.after.Seconds())))))
	}
	p.Title = http.StatusText(p.Status)
	reply(w, p.Status, "application/problem+json", p)
}

func reply(w http.ResponseWriter, status int, media string, v any) {
	body, _ := json.Marshal(v) // of strings and numbers; those were valid UTF-8
	w.Header().Set("Content-Type", media)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // nobody is left to tell
}

// read reads and checks a call.
func (r *Receiver) read(w http.ResponseWriter, req *http.Request) ([]outcomeMessage, *problem) {
	if req.Method != http.MethodPost {
		return nil, &problem{Status: http.StatusMethodNotAllowed, Detail: "outcomes are posted"}
	}
	if req.Header.Get("Webhook-Signature") == "" {
		return nil, &problem{Status: http.StatusUnauthorized, Detail: "the call is not signed by Standard Webhooks"}
	}
	media, _, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if err != nil || media != "application/json" || req.Header.Get("Content-Encoding") != "" {
		return nil, &problem{Status: http.StatusUnsupportedMediaType, Detail: "outcomes are application/json, as it is"}
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(lateTime)) // a network's time is real; writers that know none are those of tests
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxAnswer))
	if err == nil { // or what is left would be waited for without end
		_ = control.SetReadDeadline(time.Time{})
	}
	var large *http.MaxBytesError
	var network net.Error
	switch {
	case errors.As(err, &large):
		return nil, &problem{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("a call has at most %d bytes", maxAnswer)}
	case errors.As(err, &network) && network.Timeout():
		return nil, &problem{Status: http.StatusRequestTimeout, Detail: "the body took too long"}
	case err != nil:
		return nil, &problem{Status: http.StatusBadRequest, Detail: "the body ends before its end"}
	}
	if err := m2m.CheckSignature(r.cfg.Secret, req.Header, body); err != nil {
		return nil, &problem{Status: http.StatusUnauthorized, Detail: err.Error()}
	}
	said, err := decodeOutcomes(body)
	switch {
	case err != nil:
		return nil, &problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf("the body cannot be read: %.300v", err)}
	case len(said) > maxLate:
		return nil, &problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf("a call brings at most %d outcomes", maxLate)}
	}
	return said, nil
}

// settle settles outcomes account by account. When it fails half way, what was
// settled stays so, and the call can be repeated as it was.
func (r *Receiver) settle(ctx context.Context, said []outcomeMessage) ([]resultMessage, *problem) {
	results := make([]resultMessage, len(said))
	places := map[license.AccountName][]int{} // in results
	params := map[license.AccountName]license.LateParams{}
	var accounts []license.AccountName
	for i, m := range said {
		results[i] = resultMessage{Account: m.Account, Key: m.Key}
		o, account, fault := lateOutcome(m)
		if fault != "" {
			results[i].Result, results[i].Detail = resultInvalid, fault
			continue
		}
		if len(places[account]) == 0 {
			accounts = append(accounts, account)
		}
		places[account] = append(places[account], i)
		p := params[account]
		p.Outcomes = append(p.Outcomes, o)
		params[account] = p
	}
	for _, account := range accounts {
		p := params[account]
		p.Account, p.Now = account, r.cfg.Clock.Now()
		settled, err := r.cfg.Settler.SettleLate(ctx, p)
		if err != nil {
			return nil, r.failed(ctx, err)
		}
		if settled.More && r.cfg.Wake != nil {
			r.cfg.Wake()
		}
		for i, place := range places[account] {
			results[place].Result = settled.Results[i].String()
		}
		r.tell(ctx, p, settled.Results)
	}
	for i := range results {
		r.metrics.outcomes[results[i].Result].Inc()
	}
	return results, nil
}

// lateOutcome reads one outcome; fault says why it is none.
func lateOutcome(m outcomeMessage) (o license.LateOutcome, account license.AccountName, fault string) {
	account, err := license.ParseAccountName(m.Account)
	if err != nil {
		return o, account, "account is to be the task's account"
	}
	request, iccid, ok := cutKey(m.Key)
	if !ok {
		return o, account, "key is to be the task's key"
	}
	verdict, _ := verdictOf(m.Outcome)
	if verdict != license.Done && verdict != license.Refused {
		return o, account, "outcome is to be done or refused: nothing else ends a task"
	}
	return license.LateOutcome{Request: request, ICCID: iccid, Verdict: verdict, Code: m.Code, Comment: m.Text}, account, ""
}

// failed is the store's failure in the carrier's eyes.
func (r *Receiver) failed(ctx context.Context, err error) *problem {
	var away *license.UnavailableError
	if errors.As(err, &away) || ctx.Err() != nil {
		r.cfg.Logger.WarnContext(ctx, "late outcomes could not be settled; the carrier is asked to bring them again", "error", err)
		p := &problem{Status: http.StatusServiceUnavailable, Detail: "the outcomes cannot be written now; send the same call again", after: time.Second}
		if away != nil {
			p.after = away.After
		}
		return p
	}
	r.cfg.Logger.ErrorContext(ctx, "late outcomes could not be settled", "error", err)
	return &problem{Status: http.StatusInternalServerError, Detail: "the outcomes could not be written; send the same call again"}
}

// tell logs what an operator should look into.
func (r *Receiver) tell(ctx context.Context, p license.LateParams, results []license.LateResult) {
	strange := 0
	for i, o := range p.Outcomes {
		switch results[i] {
		case license.LateSettled, license.LateRepeated:
			continue
		case license.LateContradicts, license.LateUnknown, license.LateEnded:
		}
		if strange++; strange <= tellStrange {
			r.cfg.Logger.WarnContext(ctx, "a late outcome changes nothing", "result", results[i].String(), "verdict", o.Verdict.String(),
				"account", p.Account, "request_id", o.Request, "iccid", o.ICCID)
		}
	}
	if strange > tellStrange {
		r.cfg.Logger.WarnContext(ctx, "further late outcomes change nothing", "outcomes", strange-tellStrange, "account", p.Account)
	}
}
