package client

import "time"

// Prefix is where the operator API is.
const Prefix = "/operator/v1"

// Names of headers.
const (
	KeyHeader       = "Idempotency-Key"
	RequestIDHeader = "X-Request-ID"
)

// Page is a part of a list. With a NextCursor there may be more of it, also
// behind a page that is short or empty.
type Page[T any] struct {
	List       []T    `json:"list"`
	NextCursor string `json:"nextCursor,omitzero"`
}

// Account is a billing account.
type Account struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// NewAccount is an account to add.
type NewAccount struct {
	Name string `json:"name"`
}

// Application is a program that calls the compatible API.
type Application struct {
	Key         string    `json:"key"`
	Disabled    bool      `json:"disabled"`
	TokenIssued time.Time `json:"tokenIssued,omitzero"`
	// OldSecretUntil is until when the secret before its own is taken as well.
	OldSecretUntil time.Time `json:"oldSecretUntil,omitzero"`
}

// NewApplication is an application to add; what is empty is made up.
type NewApplication struct {
	Key    string `json:"key,omitzero"`
	Secret string `json:"secret,omitzero"`
}

// ApplicationSecret is an application's key and new secret. The secret is there
// this once, and not where the caller chose it.
type ApplicationSecret struct {
	Key            string    `json:"key"`
	Secret         string    `json:"secret,omitzero"`
	OldSecretUntil time.Time `json:"oldSecretUntil,omitzero"` // of a rotation with an overlap
}

// Rotation gives an application another secret; an empty one is made up. The old
// one is taken as well for the overlap, a duration such as "24h"; empty ends it at
// once.
type Rotation struct {
	Secret  string `json:"secret,omitzero"`
	Overlap string `json:"overlap,omitzero"`
}

// ApplicationChange changes what it names.
type ApplicationChange struct {
	Disabled *bool `json:"disabled,omitzero"`
}

// User is who opens sessions at the compatible API.
type User struct {
	Name     string   `json:"name"`
	Disabled bool     `json:"disabled"`
	Accounts []string `json:"accounts"`
}

// NewUser is a user to add. Without a password one is made up.
type NewUser struct {
	Name     string   `json:"name"`
	Password string   `json:"password,omitzero"`
	Accounts []string `json:"accounts,omitzero"`
}

// UserPassword is a user's name and new password. The password is there this
// once, and not where the caller chose it.
type UserPassword struct {
	Name     string `json:"name"`
	Password string `json:"password,omitzero"`
}

// UserChange changes what it names.
type UserChange struct {
	Disabled *bool     `json:"disabled,omitzero"`
	Accounts *[]string `json:"accounts,omitzero"`
}

// NewSecret replaces a secret or password; an empty one is made up.
type NewSecret struct {
	Secret string `json:"secret,omitzero"`
}

// Pool is what an account holds of one SKU.
type Pool struct {
	Account   string `json:"account"`
	SKU       string `json:"sku"`
	Type      string `json:"type"`
	Purchased int64  `json:"purchased"`
	Reserved  int64  `json:"reserved"`
	Assigned  int64  `json:"assigned"`
	Available int64  `json:"available"`
	Threshold int64  `json:"threshold"` // with fewer available it is low; 0: it never is
	Low       bool   `json:"low"`
}

// PoolChange says when a pool counts as low.
type PoolChange struct {
	Threshold int64 `json:"threshold"`
}

// NewPurchase adds licenses to a pool, or withdraws them.
type NewPurchase struct {
	Units     int64  `json:"units"`
	Reference string `json:"reference,omitzero"`
	Reason    string `json:"reason"`
}

// Purchase is an entry of a pool's record.
type Purchase struct {
	Number    int64     `json:"number"`
	Units     int64     `json:"units"`
	Reference string    `json:"reference"`
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`
}

// SIM is a SIM with the license it holds or awaits.
type SIM struct {
	Account    string    `json:"account"`
	ICCID      string    `json:"iccid"`
	IMEI       string    `json:"imei"`
	MDN        string    `json:"mdn"`
	IMSI       string    `json:"imsi"`
	State      string    `json:"state"`
	Generation string    `json:"generation"`
	Number     int64     `json:"number"`
	Added      time.Time `json:"added"`
	License    *License  `json:"license,omitzero"`
}

// The states of a license on a SIM.
const (
	LicenseAssigned = "assigned"
	LicensePending  = "pending-assignment"
	LicenseLeaving  = "pending-unassignment"
)

// License is what a SIM holds or awaits.
type License struct {
	SKU     string `json:"sku"`
	State   string `json:"state"`
	Request string `json:"request"` // that last touched it
}

// SIMChange changes what it names.
type SIMChange struct {
	State string `json:"state"`
}

// SIMsChange changes the state of many SIMs, or of none.
type SIMsChange struct {
	State  string   `json:"state"`
	ICCIDs []string `json:"iccids"`
}

// Changed counts what was changed.
type Changed struct {
	Changed int `json:"changed"`
}

// NewSIM is a SIM to import.
type NewSIM struct {
	Account    string `json:"account,omitzero"`
	ICCID      string `json:"iccid"`
	IMEI       string `json:"imei"`
	MDN        string `json:"mdn,omitzero"`
	IMSI       string `json:"imsi,omitzero"`
	State      string `json:"state,omitzero"`
	Generation string `json:"generation,omitzero"`
}

// NewSIMs is an import in JSON.
type NewSIMs struct {
	SIMs []NewSIM `json:"sims"`
}

// Imported is what an import did, or would do.
type Imported struct {
	Added     int    `json:"added"`
	Unchanged int    `json:"unchanged"`
	DryRun    bool   `json:"dryRun"`
	Warnings  []Line `json:"warnings"`
}

// Line is a remark about one line of an upload, or one of its SIMs in JSON,
// counted from 1.
type Line struct {
	Line   int    `json:"line"`
	Detail string `json:"detail"`
}

// Request is an accepted request.
type Request struct {
	Account     string    `json:"account"`
	ID          string    `json:"id"`
	SKU         string    `json:"sku"`
	Action      string    `json:"action"`
	Status      string    `json:"status"`
	Accepted    time.Time `json:"accepted"`
	Application string    `json:"application"`
	User        string    `json:"user"`
	Devices     int       `json:"devices"`
	Succeeded   int       `json:"succeeded"`
	Failed      int       `json:"failed"`
	Ended       int       `json:"ended"` // callbacks that ended
	Purged      time.Time `json:"purged,omitzero"`
	Trace       string    `json:"trace,omitzero"`
}

// Moment is an entry of a timeline.
type Moment struct {
	At     time.Time `json:"at"`
	What   string    `json:"what"`
	Units  int64     `json:"units,omitzero"`
	ICCID  string    `json:"iccid,omitzero"`
	Detail string    `json:"detail,omitzero"`
}

// RequestDetail is a request with its course as a whole. That of each device is
// with its task.
type RequestDetail struct {
	Request  Request  `json:"request"`
	Timeline []Moment `json:"timeline"`
}

// Task is the work for one device of a request, and its callback.
type Task struct {
	Account   string    `json:"account"`
	Request   string    `json:"request"`
	Action    string    `json:"action"`
	SKU       string    `json:"sku"`
	ICCID     string    `json:"iccid"`
	IMEI      string    `json:"imei,omitzero"`
	MDN       string    `json:"mdn,omitzero"`
	WebhookID string    `json:"webhookId"`
	State     string    `json:"state"`
	Outcome   string    `json:"outcome,omitzero"` // done or refused
	Code      string    `json:"code,omitzero"`
	Comment   string    `json:"comment,omitzero"`
	Accepted  time.Time `json:"accepted"`
	Settled   time.Time `json:"settled,omitzero"`
	Round     int       `json:"round"`
	Attempts  int       `json:"attempts"`
	Status    int       `json:"status,omitzero"`
	LatencyMS float64   `json:"latencyMs,omitzero"`
	Due       time.Time `json:"due,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
}

// Attempt is an attempt to deliver a callback that failed.
type Attempt struct {
	Round     int       `json:"round"`
	Attempt   int       `json:"attempt"`
	Ended     time.Time `json:"ended"`
	Status    int       `json:"status,omitzero"`
	LatencyMS float64   `json:"latencyMs"`
	Answer    string    `json:"answer"`
}

// TaskDetail is a task with its failed attempts and its course.
type TaskDetail struct {
	Task     Task      `json:"task"`
	Failures []Attempt `json:"failures"`
	Timeline []Moment  `json:"timeline"`
}

// SendCallbacks says which callbacks of an account to send again: those of a
// request, of one SIM of it, or of the requests accepted in a time.
type SendCallbacks struct {
	Request   string    `json:"request,omitzero"`
	ICCID     string    `json:"iccid,omitzero"`
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until,omitzero"`
	Delivered bool      `json:"delivered,omitzero"` // those too that were acknowledged
	DryRun    bool      `json:"dryRun,omitzero"`
	Cursor    string    `json:"cursor,omitzero"` // of the answer before
}

// SentCallbacks says what became of a SendCallbacks. With a NextCursor it is not
// done yet.
type SentCallbacks struct {
	Queued     int            `json:"queued"`
	Changed    int            `json:"changed"` // no longer were as they were found
	Left       map[string]int `json:"left"`    // were left alone, by their state
	DryRun     bool           `json:"dryRun"`
	NextCursor string         `json:"nextCursor,omitzero"`
}

// Listener is where an account's callbacks go. An empty setting is the server's
// own.
type Listener struct {
	Account  string `json:"account"`
	Service  string `json:"service"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Signed   bool   `json:"signed"`
	Attempts int    `json:"attempts,omitzero"`
	Interval string `json:"interval,omitzero"`
	Timeout  string `json:"timeout,omitzero"`
}

// ListenerChange changes what it names; 0 and "0s" give a setting back to the
// server's own, and an empty signing secret stops signing.
type ListenerChange struct {
	Attempts      *int    `json:"attempts,omitzero"`
	Interval      *string `json:"interval,omitzero"`
	Timeout       *string `json:"timeout,omitzero"`
	SigningSecret *string `json:"signingSecret,omitzero"`
}

// SigningSecret is a new signing secret. It is there this once.
type SigningSecret struct {
	Secret string `json:"secret"`
}

// Tested is how a listener answered a test message.
type Tested struct {
	OK        bool    `json:"ok"`
	WebhookID string  `json:"webhookId"`
	Status    int     `json:"status,omitzero"` // absent: no answer
	LatencyMS float64 `json:"latencyMs"`
	Answer    string  `json:"answer"` // its first bytes, or why there is none
}

// StuckTask is a task whose carrier stayed silent.
type StuckTask struct {
	Account string    `json:"account"`
	Request string    `json:"request"`
	ICCID   string    `json:"iccid"`
	IMEI    string    `json:"imei"`
	MDN     string    `json:"mdn"`
	Action  string    `json:"action"`
	SKU     string    `json:"sku"`
	Since   time.Time `json:"since"`
	Asked   int       `json:"asked"`
	Comment string    `json:"comment"`
}

// The decisions about a stuck task.
const (
	DecideDone    = "done"
	DecideRefused = "refused"
	DecideRetry   = "retry"
)

// Decision decides a stuck task.
type Decision struct {
	Decision string `json:"decision"`
	Reason   string `json:"reason"`
}

// Verified is what verifying the ledger found.
type Verified struct {
	OK       bool    `json:"ok"`
	Accounts int64   `json:"accounts"`
	Pools    int64   `json:"pools"`
	SIMs     int64   `json:"sims"`
	Requests int64   `json:"requests"`
	Postings int64   `json:"postings"`
	Drift    []Drift `json:"drift"`
	Drifts   int     `json:"drifts"` // all, of which Drift has the first
}

// Drift is one place where the facts of the ledger disagree.
type Drift struct {
	Account string `json:"account"`
	SKU     string `json:"sku,omitzero"`
	What    string `json:"what"`
}

// Self is who calls.
type Self struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

// The live events.
const (
	EventAccepted = "accepted" // a request was accepted
	EventSettled  = "settled"  // the carrier's answer to some of its devices was written down
	EventEnded    = "ended"    // some of its callbacks ended, or began anew
	EventLow      = "low"      // a pool ran low
	EventReset    = "reset"    // what happened meanwhile is not known: read anew what is shown
)

// Event is what happened: to a request, with how it stands then, or to a pool.
type Event struct {
	ID      string   `json:"id"`
	Type    string   `json:"type"`
	Request *Request `json:"request,omitzero"`
	Alert   *Alert   `json:"alert,omitzero"`
}

// Alert is that a pool ran low.
type Alert struct {
	Account   string    `json:"account"`
	SKU       string    `json:"sku"`
	At        time.Time `json:"at"`
	Available int64     `json:"available"`
	Threshold int64     `json:"threshold"`
}

// Operator is who runs the installation.
type Operator struct {
	Name     string    `json:"name"`
	Role     string    `json:"role"`
	Disabled bool      `json:"disabled"`
	Token    bool      `json:"token"`    // whether there is one
	Password bool      `json:"password"` // the same, for the console
	Created  time.Time `json:"created"`
	Used     time.Time `json:"used,omitzero"`
}

// NewOperator is an operator to create.
type NewOperator struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

// OperatorToken is an operator's new token. It is there this once.
type OperatorToken struct {
	Name  string `json:"name"`
	Token string `json:"token"`
}

// OperatorChange changes what it names.
type OperatorChange struct {
	Role     *string `json:"role,omitzero"`
	Disabled *bool   `json:"disabled,omitzero"`
}

// Policy is what an account may do of the work that cannot be undone.
type Policy struct {
	Account        string `json:"account"`
	RefuseLifetime bool   `json:"refuseLifetime"`
	DailyDevices   int64  `json:"dailyDevices"` // 0: no limit
	// AcceptedToday is how many devices were accepted on this UTC day, where there
	// is a limit.
	AcceptedToday int64 `json:"acceptedToday"`
}

// NewPolicy takes the place of an account's policy.
type NewPolicy struct {
	RefuseLifetime bool  `json:"refuseLifetime"`
	DailyDevices   int64 `json:"dailyDevices"`
}

// AuditEntry is who did what, when and from where.
type AuditEntry struct {
	Number  int64     `json:"number,omitzero"` // its place in the chain; absent until it is sealed
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
	Who     string    `json:"who"`
	Via     string    `json:"via"`
	From    string    `json:"from,omitzero"`
	Action  string    `json:"action"`
	Account string    `json:"account,omitzero"`
	Target  string    `json:"target,omitzero"`
	Before  any       `json:"before,omitzero"`
	After   any       `json:"after,omitzero"`
	Hash    string    `json:"hash,omitzero"`
}
