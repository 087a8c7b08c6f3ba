package client

import "time"

// Overview is how an installation stands.
type Overview struct {
	At        time.Time `json:"at"` // by the service's clock
	Version   string    `json:"version"`
	Engine    string    `json:"engine"`
	Pools     []Pool    `json:"pools"` // those of which the least is left
	PoolCount int       `json:"poolCount"`
	LowPools  int       `json:"lowPools"`
	Stuck     int       `json:"stuck"`
	Hours     []Hour    `json:"hours"` // the last 24, the oldest first
	// Bounded says that there are more requests or accounts than were counted: the
	// newest were.
	Bounded bool         `json:"bounded"`
	Queues  []Queue      `json:"queues"`
	Trouble []Trouble    `json:"trouble"`
	Audit   []AuditEntry `json:"audit"` // the last entries
}

// Hour is what came of the requests that were accepted in an hour.
type Hour struct {
	At          time.Time `json:"at"`
	Requests    int64     `json:"requests"`
	Devices     int64     `json:"devices"`
	Succeeded   int64     `json:"succeeded"`
	Failed      int64     `json:"failed"`
	Delivered   int64     `json:"delivered"` // callbacks
	Undelivered int64     `json:"undelivered"`
}

// Queue is the work that is due in a phase: QueueCarrier or QueueListener.
type Queue struct {
	Phase  string    `json:"phase"`
	Due    int64     `json:"due"`
	Oldest time.Time `json:"oldest,omitzero"`
}

// The phases of work.
const (
	QueueCarrier  = "carrier"
	QueueListener = "listener"
)

// Trouble is a listener that left callbacks of the last 24 hours unacknowledged.
type Trouble struct {
	Account     string    `json:"account"`
	Service     string    `json:"service"`
	URL         string    `json:"url"` // empty where none is registered
	Undelivered int64     `json:"undelivered"`
	Last        time.Time `json:"last,omitzero"`   // when the newest of them ended
	Status      int       `json:"status,omitzero"` // of its last attempt; absent: no answer
}

// NewRequest is a request by an operator: to assign or unassign licenses.
type NewRequest struct {
	Action string   `json:"action"`
	SKU    string   `json:"sku"`
	ICCIDs []string `json:"iccids"`
}

// Planned is what a request would do, were it made now.
type Planned struct {
	Pool    Pool            `json:"pool"`
	Fit     int             `json:"fit"`
	Unfit   int             `json:"unfit"`
	Refusal string          `json:"refusal,omitzero"` // why the whole would be refused
	Devices []PlannedDevice `json:"devices"`
}

// PlannedDevice is what a request would do to a SIM.
type PlannedDevice struct {
	ICCID  string `json:"iccid"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitzero"` // why not
}

// Exchange is what was said on the wire, made anew from what is kept, without
// secrets.
type Exchange struct {
	Request string `json:"request"`
	Answer  string `json:"answer,omitzero"`
	Note    string `json:"note"`
}

// OperatorPassword is an operator's name and new password for the console. The
// password is there this once, and not where the caller chose it.
type OperatorPassword struct {
	Name     string `json:"name"`
	Password string `json:"password,omitzero"`
}
